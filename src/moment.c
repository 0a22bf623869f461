/* SPDX-License-Identifier: PostgreSQL */
#include "moment.h"
