// Results that were computed in double, in the dtype in which they are wanted.
#pragma once
#include "portable.cuh"

namespace lossfuncs {

struct Results {
    const double* x;
    const double* weights;  // or null
    void* out;
    i64 count;
};

template <class E> DEVICE void give(const Results& a) {
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < a.count; i += (i64)gridDim.x * blockDim.x)
        narrow(a.weights ? a.x[i] * a.weights[i] : a.x[i], static_cast<E*>(a.out)[i]);
}

}  // namespace lossfuncs
