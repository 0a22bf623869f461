/* SPDX-License-Identifier: PostgreSQL */
#include "scheduler.h"
