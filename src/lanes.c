/* SPDX-License-Identifier: PostgreSQL */
#include "lanes.h"
