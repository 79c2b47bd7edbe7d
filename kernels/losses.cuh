// Everything that an entry may name.
#pragma once
#include "regression.cuh"
