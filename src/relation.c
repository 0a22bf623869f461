/* SPDX-License-Identifier: PostgreSQL */
#include "relation.h"
