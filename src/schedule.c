/* SPDX-License-Identifier: PostgreSQL */
#include "schedule.h"
