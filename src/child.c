/* SPDX-License-Identifier: PostgreSQL */
#include "child.h"
