"""The one thing that setup.cfg cannot say: packages are found below three source roots. All else is in setup.cfg."""

from setuptools import find_packages, setup

setup(
    packages=[
        package
        for root, name in ((".", "mirrord_trace"), ("agent", "mirrord_agent"), ("syscalls", "mirrord_syscalls"))
        for package in find_packages(root, include=[name, f"{name}.*"])
    ]
)
