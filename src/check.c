/* SPDX-License-Identifier: PostgreSQL */
#include "check.h"
