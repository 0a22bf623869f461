/* SPDX-License-Identifier: PostgreSQL */
#include "batch.h"
