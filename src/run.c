/* SPDX-License-Identifier: PostgreSQL */
#include "run.h"
