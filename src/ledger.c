/* SPDX-License-Identifier: PostgreSQL */
#include "ledger.h"
