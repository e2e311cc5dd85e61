"""Everything that can be said about files, for hypothesis."""

from hypothesis import strategies as st

from mirrord_agent.wire import file_frames as files
from mirrord_agent.wire.file_frames import FileAnswer, FileRequest
from mirrord_agent.wire.file_records import NOW, Change, Entry, FilesystemStatus, Mount, Status, Visited

STREAMS = st.integers(1, 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
LENGTHS = st.integers(0, 2**63 - 1)
PATHS = st.binary(max_size=100)
PAYLOADS = st.binary(max_size=300)
TIMES = st.none() | st.just(NOW) | INT64

STATUSES = st.builds(
    Status,
    mode=UINT32,
    ino=UINT64,
    nlink=UINT64,
    uid=UINT32,
    gid=UINT32,
    rdev=UINT64,
    size=INT64,
    blocks=UINT64,
    blksize=UINT64,
    atime_ns=INT64,
    mtime_ns=INT64,
    ctime_ns=INT64,
    device=UINT64,
    has_attributes=st.booleans(),
)
FILESYSTEMS = st.builds(
    FilesystemStatus, INT64, INT64, UINT64, UINT64, UINT64, UINT64, UINT64, INT64, INT64, INT64, UINT64
)
CHANGES = st.builds(
    Change,
    mode=st.none() | st.integers(0, 0o7777),
    uid=st.none() | UINT32,
    gid=st.none() | UINT32,
    size=st.none() | LENGTHS,
    atime_ns=TIMES,
    mtime_ns=TIMES,
)
NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name)
ENTRIES = st.builds(Entry, NAMES, st.none() | STATUSES)
MOUNTS = st.builds(Mount, PATHS, PATHS, PATHS, PATHS, st.booleans())
STEPS = st.one_of(
    st.builds(Visited, PATHS, STATUSES, st.just(0), st.none() | PATHS),
    st.builds(Visited, PATHS, st.none(), st.integers(1, 4095), st.none()),
)

FILE_FRAMES: st.SearchStrategy[FileRequest | FileAnswer] = st.one_of(
    st.builds(files.Look, STREAMS, PATHS, st.booleans(), LENGTHS),
    st.builds(files.OpenFile, STREAMS, PATHS, UINT32, UINT32, UINT32),
    st.builds(files.ListDirectory, STREAMS, PATHS),
    st.builds(files.GetFilesystem, STREAMS, PATHS),
    st.builds(files.CheckAccess, STREAMS, PATHS, UINT32),
    st.builds(files.ReadLink, STREAMS, PATHS),
    st.builds(files.GetAttribute, STREAMS, PATHS, PATHS),
    st.builds(files.ListAttributes, STREAMS, PATHS),
    st.builds(files.SetAttribute, STREAMS, PATHS, PATHS, UINT32, PAYLOADS),
    st.builds(files.RemoveAttribute, STREAMS, PATHS, PATHS),
    st.builds(files.MakeDirectory, STREAMS, PATHS, UINT32, UINT32),
    st.builds(files.MakeNode, STREAMS, PATHS, UINT32, UINT32, UINT64),
    st.builds(files.MakeLink, STREAMS, PATHS, PATHS),
    st.builds(files.Link, STREAMS, PATHS, PATHS),
    st.builds(files.Rename, STREAMS, PATHS, PATHS, UINT32),
    st.builds(files.Remove, STREAMS, PATHS, st.booleans()),
    st.builds(files.ChangePath, STREAMS, PATHS, CHANGES),
    st.builds(files.ReadFile, STREAMS, STREAMS, LENGTHS, st.integers(0, 1 << 20)),
    st.builds(files.WriteFile, STREAMS, STREAMS, LENGTHS, PAYLOADS),
    st.builds(files.GetStatus, STREAMS, STREAMS),
    st.builds(files.ChangeFile, STREAMS, STREAMS, CHANGES),
    st.builds(files.SyncFile, STREAMS, STREAMS, st.booleans()),
    st.builds(files.OpenAgain, STREAMS, STREAMS, UINT32),
    st.builds(files.GiveName, STREAMS, STREAMS, PATHS),
    st.builds(files.ListMore, STREAMS, STREAMS),
    st.builds(files.GetMounts, STREAMS),
    st.builds(files.Looked, STREAMS, st.none() | UINT32, st.integers(0, 4095), PAYLOADS),
    st.builds(files.FileOpened, STREAMS, st.booleans(), STATUSES),
    st.builds(files.FileTold, STREAMS, STATUSES),
    st.builds(files.FileData, STREAMS, PAYLOADS),
    st.builds(files.Written, STREAMS, LENGTHS),
    st.builds(files.Listed, STREAMS, st.booleans(), PAYLOADS),
    st.builds(files.FilesystemTold, STREAMS, FILESYSTEMS),
)
