/* SPDX-License-Identifier: PostgreSQL */
#include "bulk.h"
