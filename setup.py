"""What setup.cfg cannot say: packages below three source roots, and a part in C. All else is in setup.cfg."""

from setuptools import Extension, find_packages, setup

NOTIFY = "mirrord_trace/supervisor/delivery/notify"

setup(
    packages=[
        package
        for root, name in ((".", "mirrord_trace"), ("agent", "mirrord_agent"), ("syscalls", "mirrord_syscalls"))
        for package in find_packages(root, include=[name, f"{name}.*"])
    ],
    # A plain library for ctypes, without Python's headers. Optional: without a C compiler the same is done in Python.
    ext_modules=[Extension(f"{NOTIFY.replace('/', '.')}._loop", [f"{NOTIFY}/_loop.c"], optional=True)],
)
