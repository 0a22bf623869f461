/* SPDX-License-Identifier: PostgreSQL */
#include "setting.h"
