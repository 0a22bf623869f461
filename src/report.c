/* SPDX-License-Identifier: PostgreSQL */
#include "report.h"
