"""file_imports.py ROOT: imports a package that only the pod has."""

import importlib
import importlib.resources
import inspect
import pkgutil
import sys

packages = f"{sys.argv[1]}/packages"
try:
    import pod_package
except ModuleNotFoundError as error:
    print("before:", error)
sys.path.insert(0, packages)
import pod_package  # noqa: E402
import single  # noqa: E402
from pod_package.inner import leaf  # noqa: E402

print("answer:", pod_package.answer(), single.VALUE, pod_package.NAME)
print("files:", pod_package.__file__, leaf.__file__, single.__spec__.origin)
print("modules:", [module.name for module in pkgutil.walk_packages([packages])])
print("resource:", importlib.resources.files("pod_package").joinpath("data/words").read_text().split())
print("source:", inspect.getsource(leaf.answer))
importlib.reload(leaf)
try:
    import pod_package.nothing
except ModuleNotFoundError as error:
    print("nothing:", error)
