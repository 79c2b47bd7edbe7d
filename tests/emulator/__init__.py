"""CUDA kernels on the CPU: the same source text, compiled by a C++ compiler, each thread a fibre.

    cuda.h       CUDA's vocabulary                  build.py    compiles, and keeps what it compiled
    fibres.h     what kernels ask of the scheduler  program.py  launches
    fibres.cpp   the scheduler                      device.py   the device that lossfuncs.gpu runs on
    switch.h     changing stacks
    memory.h     guards and poison
    faults.h     signals
    sanitizers.h what the sanitizers must be told

What goes wrong is an `EmulatorError` that says where: threads that wait for ever, that diverge at a barrier or a warp primitive, that
return before one; shared arrays and device memory touched behind their ends. What was never written is NaN. Races, misaligned accesses
and overflows are found by ThreadSanitizer, AddressSanitizer and UndefinedBehaviorSanitizer, see tests/test_sanitizers.py.
"""

from .device import DEVICE as DEVICE
from .device import DeviceArray as DeviceArray
from .device import EmulatedDevice as EmulatedDevice
from .program import DEFAULT as DEFAULT
from .program import SCHEDULES as SCHEDULES
from .program import EmulatorError as EmulatorError
from .program import Schedule as Schedule
from .program import compile as compile
