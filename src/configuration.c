/* SPDX-License-Identifier: PostgreSQL */
#include "configuration.h"
