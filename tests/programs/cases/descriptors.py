"""Descriptors: copies, children, passing, appends, locks, stdio, and mappings beside them."""
import array, ctypes, fcntl, mmap, os, socket, struct, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)

def wait(child):
    assert os.waitpid(child, 0)[1] == 0

def in_child(deed):
    child = os.fork()
    if child == 0:
        try:
            deed()
        except BaseException as fault:
            print("child:", repr(fault), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    wait(child)

# dup, dup2, fork: one offset.
f = os.open("f", os.O_RDWR | os.O_CREAT)
os.write(f, b"0123456789")
copy = os.dup(f)
print(os.lseek(copy, 0, os.SEEK_CUR), os.lseek(copy, 2, os.SEEK_SET), os.read(f, 3), os.read(copy, 2))
os.dup2(f, 100)
os.lseek(f, 0, os.SEEK_SET)
in_child(lambda: os.read(100, 4))
print(os.read(copy, 2))
os.close(100)
duplicate = fcntl.fcntl(f, fcntl.F_DUPFD_CLOEXEC, 50)
print(duplicate >= 50, os.pread(duplicate, 3, 7))

# A program that is executed goes on where this one stopped.
os.lseek(f, 4, os.SEEK_SET)
print(subprocess.run(["head", "-c", "3"], stdin=f, capture_output=True).stdout)
print(subprocess.run(["cat"], stdin=f, capture_output=True).stdout)
with open("said", "wb") as said:
    said.write(b"before ")
    said.flush()
    subprocess.run(["sh", "-c", "echo in between"], stdout=said)
    said.write(b"after")
print(open("said", "rb").read())

# A descriptor is sent, and used by both.
here, there = socket.socketpair()
def receive():
    _, rights, _, _ = there.recvmsg(1, socket.CMSG_SPACE(4))
    passed = array.array("i", rights[0][2])[0]
    os.write(passed, b"by the other")
os.lseek(f, 0, os.SEEK_SET)
here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", f))])
in_child(receive)
os.write(f, b" and by me")
print(os.pread(f, 100, 0), os.lseek(f, 0, os.SEEK_CUR))

# O_APPEND from many processes: no line is lost or torn.
def append(name):
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for line in range(1000):
        os.write(log, b"%d %d\n" % (name, line))
children = []
for name in range(4):
    child = os.fork()
    if child == 0:
        append(name)
        os._exit(0)
    children.append(child)
for child in children:
    wait(child)
lines = open("log").read().splitlines()
print(len(lines), len(set(lines)))
ordered = all([line for line in lines if line.startswith(f"{name} ")] == [f"{name} {n}" for n in range(1000)] for name in range(4))
print(ordered)

# stdio of the C library beside calls.
libc.fopen.restype = ctypes.c_void_p
libc.fwrite.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
libc.fclose.argtypes = libc.fflush.argtypes = libc.rewind.argtypes = [ctypes.c_void_p]
libc.fgets.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
stream = libc.fopen(b"stream", b"w+")
for line in range(2000):
    libc.fwrite(b"line %d\n" % line, 1, len(b"line %d\n" % line), stream)
libc.fflush(stream)
print(os.stat("stream").st_size)
libc.rewind(stream)
buffer = ctypes.create_string_buffer(100)
libc.fgets(buffer, 100, stream)
print(buffer.value)
libc.fclose(stream)

# A mapping and pread on one file.
g = os.open("m", os.O_RDWR | os.O_CREAT)
os.ftruncate(g, 8192)
m = mmap.mmap(g, 8192)
for n in range(200):
    m[n * 40:n * 40 + 4] = struct.pack("<I", n)
    assert os.pread(g, 4, n * 40) == struct.pack("<I", n)
    os.pwrite(g, struct.pack("<I", n + 1), n * 40)
    assert m[n * 40:n * 40 + 4] == struct.pack("<I", n + 1)
print("one copy")

# newfstatat(fd, "", AT_EMPTY_PATH), statx.
AT_EMPTY_PATH = 0x1000
stat = ctypes.create_string_buffer(144)
print(libc.fstatat(g, b"", stat, AT_EMPTY_PATH), struct.unpack_from("q", stat, 48)[0])
statx = ctypes.create_string_buffer(256)
print(libc.statx(g, b"", AT_EMPTY_PATH, 0x7ff, statx), struct.unpack_from("Q", statx, 40)[0])

# Locks: POSIX, of open files, flock.
fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 0)
def try_posix():
    h = os.open("m", os.O_RDWR)
    try:
        fcntl.lockf(h, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50)
    except OSError as error:
        assert error.errno in (11, 13)
        fcntl.lockf(h, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)
        return
    raise AssertionError("not locked")
in_child(try_posix)
F_OFD_SETLK = 37
lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 1000, 10, 0)
h = os.open("m", os.O_RDWR)
fcntl.fcntl(h, F_OFD_SETLK, lock)
try:
    fcntl.fcntl(g, F_OFD_SETLK, lock)
    print("not locked")
except OSError as error:
    print(error.errno in (11, 13))
fcntl.flock(g, fcntl.LOCK_EX)
try:
    fcntl.flock(h, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("not locked")
except OSError as error:
    print(error.errno)
fcntl.flock(g, fcntl.LOCK_UN)
fcntl.flock(h, fcntl.LOCK_EX | fcntl.LOCK_NB)

# Vectors, offsets that stay, a hole, and what is copied in the kernel.
v = os.open("v", os.O_RDWR | os.O_CREAT)
print(os.writev(v, [b"one", b"", b"two"]), os.pwritev(v, [b"three"], 10), os.lseek(v, 0, os.SEEK_CUR))
print(os.pread(v, 100, 0), os.preadv(v, [bytearray(3), bytearray(5)], 8))
os.posix_fallocate(v, 1 << 20, 4096)
print(os.fstat(v).st_size, os.lseek(v, 0, os.SEEK_END))
w = os.open("w", os.O_RDWR | os.O_CREAT)
print(os.copy_file_range(v, w, 15, 0, 0), os.sendfile(w, v, 3, 3), os.pread(w, 100, 0))
os.truncate("w", 4)
print(os.pread(w, 100, 0))
