"""What was tried, in words for people."""

from __future__ import annotations

import os
from typing import Any

from mirrord_agent.wire import file_frames as ask
from mirrord_agent.wire.file_frames import FileRequest

_DOING: dict[type[Any], str] = {
    ask.Look: "looking at",
    ask.OpenFile: "opening",
    ask.ListDirectory: "listing",
    ask.ListMore: "listing a directory",
    ask.GetMounts: "reading what is mounted",
    ask.GetFilesystem: "looking at the filesystem of",
    ask.CheckAccess: "checking access to",
    ask.ReadLink: "reading the link",
    ask.GetAttribute: "reading an attribute of",
    ask.ListAttributes: "listing the attributes of",
    ask.SetAttribute: "setting an attribute of",
    ask.RemoveAttribute: "removing an attribute of",
    ask.MakeDirectory: "making the directory",
    ask.MakeNode: "making the node",
    ask.MakeLink: "making the link",
    ask.Link: "linking",
    ask.Rename: "renaming",
    ask.Remove: "removing",
    ask.ChangePath: "changing",
    ask.ReadFile: "reading an open file",
    ask.WriteFile: "writing to an open file",
    ask.GetStatus: "looking at an open file",
    ask.ChangeFile: "changing an open file",
    ask.SyncFile: "syncing an open file",
    ask.OpenAgain: "opening an open file again",
    ask.GiveName: "giving an open file the name",
}


def describe(request: FileRequest) -> str:
    """What a request is about, such as `renaming '/a' to '/b'`."""
    names = [getattr(request, field) for field in ("path", "old", "new") if hasattr(request, field)]
    return " ".join((_DOING[type(request)], " to ".join(repr(os.fsdecode(name)) for name in names))).rstrip()
