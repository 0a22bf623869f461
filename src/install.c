/* SPDX-License-Identifier: PostgreSQL */
#include "install.h"
