"""What the speed of raptr is measured with: one question a file, the same for the CPU and for a GPU.

`benchmarks/cpu.py` and `benchmarks/gpu.py` ask them of models that fit the machine; `benchmarks/performance.py` writes
their answers into docs/performance.md.
"""
