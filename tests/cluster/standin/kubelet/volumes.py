"""A pod's volumes: directories of this machine that show in its containers.

What comes of objects is written as the kubelet's atomic writer does it (pkg/volume/util/atomic_writer.go): the files
are in a directory with a new name each time, `..data` is a link to that, replaced by a rename, and each file's name is
a link through `..data`. So who reads sees all of one version, and who keeps a descriptor the old one.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime

from ..kinds import CONFIG_MAPS, SECRETS
from ..store import Object
from .environment import ConfigurationTrouble, Find, content, field

_DATA = "..data"


def write_atomically(directory: str, files: Mapping[str, bytes], mode: int = 0o644) -> None:
    """Makes these files the content of a volume; nothing happens where they are that already."""
    os.makedirs(directory, exist_ok=True)
    if _current(directory) == files:
        return
    stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.") + str(secrets.randbelow(10**9))
    os.mkdir(f"{directory}/{stamp}")
    for name, data in files.items():
        path = f"{directory}/{stamp}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, mode)
    old = os.readlink(f"{directory}/{_DATA}") if os.path.lexists(f"{directory}/{_DATA}") else None
    os.symlink(stamp, f"{directory}/..data_tmp")
    os.rename(f"{directory}/..data_tmp", f"{directory}/{_DATA}")
    tops = {name.partition("/")[0] for name in files}
    for name in tops:
        if not os.path.lexists(f"{directory}/{name}"):
            os.symlink(f"{_DATA}/{name}", f"{directory}/{name}")
    for entry in os.listdir(directory):
        if not entry.startswith("..") and entry not in tops:
            os.unlink(f"{directory}/{entry}")
    if old is not None:
        shutil.rmtree(f"{directory}/{old}")


def _current(directory: str) -> Mapping[str, bytes] | None:
    data = f"{directory}/{_DATA}"
    if not os.path.isdir(data):
        return None
    files: dict[str, bytes] = {}
    for folder, _, names in os.walk(data):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, data)] = file.read()
    return files


def set_up(pod: Object, directory: str, find: Find) -> dict[str, str]:
    """Makes a pod's volumes, or brings them up to date: where each is, by name.

    Raises ConfigurationTrouble, the message of a FailedMount event.
    """
    places: dict[str, str] = {}
    for volume in pod["spec"].get("volumes", []):
        name = volume["name"]
        place = places[name] = f"{directory}/{name}"
        if "emptyDir" in volume:
            os.makedirs(place, exist_ok=True)
            os.chmod(place, 0o777)
        elif "hostPath" in volume:
            places[name] = volume["hostPath"]["path"]
        else:
            try:
                files = _files(pod, volume, find)
            except ConfigurationTrouble as trouble:
                raise ConfigurationTrouble(f'MountVolume.SetUp failed for volume "{name}" : {trouble}') from None
            write_atomically(place, files)
    return places


def _files(pod: Object, volume: Object, find: Find) -> dict[str, bytes]:
    if "projected" in volume:
        merged: dict[str, bytes] = {}
        for source in volume["projected"]["sources"]:
            merged |= _files(pod, source, find)
        return merged
    if "serviceAccountToken" in volume:
        source = volume["serviceAccountToken"]
        account = f"{pod['metadata']['namespace']}:{pod['spec'].get('serviceAccountName', 'default')}"
        generation = pod["metadata"].get("annotations", {}).get(TOKEN_GENERATION, "0")
        return {source["path"]: f"token-of:{account}:{generation}".encode()}
    if "downwardAPI" in volume:
        return {
            item["path"]: field(pod, item["fieldRef"]["fieldPath"]).encode() for item in volume["downwardAPI"]["items"]
        }
    for kind, resource, key in (("configMap", CONFIG_MAPS, "name"), ("secret", SECRETS, "secretName")):
        if kind in volume:
            source = volume[kind]
            # Within `projected` a secret's name is in `name` as well.
            name = source.get(key) or source["name"]
            data = content(find, resource, pod, name, optional=source.get("optional", False))
            if "items" in source:
                return {item["path"]: data[item["key"]] for item in source["items"]}
            return data
    raise ConfigurationTrouble(f"the stand-in does not serve this volume: {', '.join(volume)}")


TOKEN_GENERATION = "standin/token-generation"
"""An annotation of a pod: changing it makes the kubelet write another service account token, as its rotation does."""
