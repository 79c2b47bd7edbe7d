// Everything that the entry of a row kernel may name.
#pragma once
#include "accuracy.cuh"
#include "circle.cuh"
#include "fast.cuh"
#include "hinge.cuh"
#include "overlap.cuh"
#include "probabilistic.cuh"
#include "python.cuh"
#include "regression.cuh"
#include "schedule.cuh"
