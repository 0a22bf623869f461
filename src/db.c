/* SPDX-License-Identifier: PostgreSQL */
#include "db.h"
