# Reads the disks of the machine it runs on and freezes its file systems. Sent over the connection and run from memory;
# nothing is installed or written here. Python >= 3.4, standard library alone. See docs/capture-live.md for the protocol.
# The sender puts a line NONCE = "..." before this text.
import errno
import fcntl
import hashlib
import io
import mmap
import os
import queue
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import zlib
from urllib.parse import parse_qs, quote

VERSION = 1
BLOCK = 4 * 1024 * 1024
MAX_HEADER = 256 * 1024
MAX_PAYLOAD = 8 * 1024 * 1024
WORKERS = 4
# Asks that wait for a worker; the other side keeps fewer in flight.
MAX_ASKS = 64
# Reads begin and end on this grain: right for O_DIRECT whatever the sector size.
GRAIN = 4096
# Reading across a smaller gap is cheaper than another request.
GAP = 64 * 1024
# Ways a failing medium shows: only these are bad sectors, all else is an error.
UNREADABLE = (errno.EIO, errno.EREMOTEIO, errno.ENODATA, errno.EILSEQ, errno.ETIMEDOUT)
BLKSSZGET = 0x1268
ZERO = bytes(64 * 1024)

IN = sys.stdin.buffer
OUT_LOCK = threading.Lock()


class WireRate:
    """What the other side takes, and whether compressing makes up for its cost."""

    def __init__(self, mode):
        self.mode = mode
        self.write_rate = None
        self.pack_rate = None
        self.ratio = 0.5
        self.turn = 0
        # one processor stays for the transport (sshd encrypts on one)
        self.threads = max(1, min(WORKERS, (os.cpu_count() or 1) - 1))

    @staticmethod
    def mean(old, new):
        return new if old is None else old * 0.8 + new * 0.2

    def wrote(self, size, seconds):
        if size >= 64 * 1024:
            self.write_rate = self.mean(self.write_rate, size / max(seconds, 1e-6))

    def packed(self, size, smaller, seconds):
        self.pack_rate = self.mean(self.pack_rate, size / max(seconds, 1e-6))
        self.ratio = self.mean(self.ratio, smaller / size)

    def worth_it(self):
        if self.mode != 'auto':
            return self.mode == 'always'
        self.turn += 1
        if self.write_rate is None:
            return False
        # measured now and then, as both sides change
        if self.pack_rate is None or self.turn % 64 == 0:
            return True
        packed_rate = min(self.pack_rate * self.threads, self.write_rate / max(self.ratio, 0.01))
        return packed_rate > 1.2 * self.write_rate


RATE = WireRate('auto')


def write_all(data):
    view = memoryview(data)
    while len(view) > 0:
        view = view[os.write(1, view):]


def send(fields, chunks=()):
    """One frame: lengths of header and payload, header (form encoded), payload."""
    header = '&'.join(k + '=' + quote(str(v), safe=',-:') for k, v in fields).encode()
    size = sum(len(c) for c in chunks)
    with OUT_LOCK:
        write_all(struct.pack('>II', len(header), size) + header)
        began = time.monotonic()
        for chunk in chunks:
            write_all(chunk)
        RATE.wrote(size, time.monotonic() - began)


def receive():
    """The next frame, or None when the other side is gone."""
    lengths = IN.read(8)
    if len(lengths) < 8:
        return None
    header_size, size = struct.unpack('>II', lengths)
    if header_size > MAX_HEADER or size > MAX_PAYLOAD:
        raise ValueError('frame too large')
    header = IN.read(header_size)
    payload = IN.read(size)
    if len(header) < header_size or len(payload) < size:
        return None
    return parse_qs(header.decode('ascii'), keep_blank_values=True), payload


def text(fields, name, otherwise=''):
    return fields[name][0] if name in fields else otherwise


def number(fields, name):
    return int(text(fields, name, '0'))


# --- disks

class Disk:
    def __init__(self, path, regular):
        kind = os.stat(path).st_mode
        if not (stat.S_ISBLK(kind) or (regular and stat.S_ISREG(kind))):
            raise OSError(errno.ENOTBLK, 'no block device')
        self.path = path
        self.direct = True
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            self.direct = False
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.lseek(fd, 0, os.SEEK_END)
        self.sector = 512
        if stat.S_ISBLK(kind):
            self.sector = struct.unpack('i', fcntl.ioctl(fd, BLKSSZGET, b'\0' * 4))[0]
        os.close(fd)
        self.steps = [s for s in (64 * 1024, GRAIN, 512) if s >= self.sector]
        self.zero_sums = {}

    def zero_sum(self, length):
        if length not in self.zero_sums:
            total = hashlib.sha256()
            for start in range(0, length, len(ZERO)):
                total.update(ZERO[:length - start])
            self.zero_sums[length] = total.digest()
        return self.zero_sums[length]


class Reader:
    """One descriptor with its own position and an aligned buffer of one block."""

    def __init__(self, disk):
        self.disk = disk
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if disk.direct else 0)
        self.file = io.FileIO(os.open(disk.path, flags), 'r')
        # page aligned, as O_DIRECT wants it
        self.buffer = memoryview(mmap.mmap(-1, BLOCK))
        self.bad = []

    def fill(self, base, start, end, grain):
        """Bytes start..end of the block at `base` into the buffer, and what lies around them up to the grain."""
        limit = self.disk.size - base
        last = min(end, limit)
        at = start - start % grain
        stop = min(BLOCK, -(-end // grain) * grain)
        if not self.disk.direct:
            # without O_DIRECT the page cache may hold what the disk was before
            os.posix_fadvise(self.file.fileno(), base + at, stop - at, os.POSIX_FADV_DONTNEED)
        self.file.seek(base + at)
        while at < last:
            got = self.file.readinto(self.buffer[at:stop])
            if not got:
                raise OSError(errno.EIO, 'the disk ends early')
            at += got

    def rescue(self, base, start, end, level):
        """As fill, in ever smaller pieces around what cannot be read."""
        steps = self.disk.steps
        grain = GRAIN if level == 0 or steps[level - 1] >= GRAIN else steps[level - 1]
        try:
            self.fill(base, start, end, grain)
            return
        except OSError as e:
            if e.errno not in UNREADABLE:
                raise
        if level == len(steps):
            self.bad.append((start, end))
            return
        step = steps[level]
        for at in range(start - start % step, end, step):
            self.rescue(base, max(at, start), min(at + step, end), level + 1)

    def read(self, base, length, parts):
        """The canonical block: wanted parts as they are on the disk, zeros elsewhere; and its bad ranges."""
        self.bad = []
        runs = []
        for start, size in parts:
            end = start + size
            if runs and start - runs[-1][1] <= GAP:
                runs[-1][1] = end
            else:
                runs.append([start, end])
        for start, end in runs:
            self.rescue(base, start, end, 0)
        at = 0
        for start, size in parts:
            self.zero(at, start)
            at = start + size
        self.zero(at, length)
        bad = []
        for start, end in self.bad:
            self.zero(start, end)
            for first, size in parts:
                a, b = max(start, first), min(end, first + size)
                if a < b:
                    if bad and bad[-1][1] == a:
                        bad[-1][1] = b
                    else:
                        bad.append([a, b])
        return self.buffer[:length], bad

    def zero(self, start, end):
        for at in range(start, end, len(ZERO)):
            stop = min(at + len(ZERO), end)
            self.buffer[at:stop] = ZERO[:stop - at]

    def is_zero(self, length):
        for at in range(0, length, len(ZERO)):
            stop = min(at + len(ZERO), length)
            if bytes(self.buffer[at:stop]) != ZERO[:stop - at]:
                return False
        return True


def pack(chunks, size):
    """Smaller chunks, or None when that does not pay."""
    if size < 4096 or not RATE.worth_it():
        return None
    sample = bytes(chunks[0][:64 * 1024])
    if len(zlib.compress(sample, 1)) > 0.9 * len(sample):
        RATE.ratio = RATE.mean(RATE.ratio, 1.0)
        return None
    began = time.monotonic()
    packer = zlib.compressobj(1)
    smaller = [packer.compress(c) for c in chunks]
    smaller.append(packer.flush())
    total = sum(len(c) for c in smaller)
    RATE.packed(size, total, time.monotonic() - began)
    return smaller if total < size else None


def answer_block(reader, ask):
    ident, base, length, parts, known = ask[1:]
    block, bad = reader.read(base, length, parts)
    fields = [('id', ident)]
    if bad:
        fields.append(('bad', ','.join('%d-%d' % (a, b - a) for a, b in bad)))
    if reader.is_zero(length):
        digest = reader.disk.zero_sum(length)
        kind = 'zero'
    else:
        digest = hashlib.sha256(block).digest()
        kind = 'data'
    if digest == known:
        kind = 'same'
    fields += [('kind', kind), ('sha', ''.join('%02x' % b for b in bytearray(digest)))]
    if kind != 'data':
        send(fields)
        return
    chunks = [block[s:s + n] for s, n in parts]
    smaller = pack(chunks, sum(len(c) for c in chunks))
    if smaller is not None:
        fields.append(('z', 1))
    send(fields, chunks if smaller is None else smaller)


def fail(ident, error):
    send([('id', ident), ('error', str(error)[:1000]), ('errno', getattr(error, 'errno', None) or 0)])


class Service:
    """The disk of this connection, and the threads that read it."""

    def __init__(self):
        self.disk = None
        self.asks = queue.Queue(MAX_ASKS)
        self.working = False

    def open(self, ident, fields):
        self.disk = Disk(text(fields, 'path'), text(fields, 'regular') == '1')
        RATE.mode = text(fields, 'compress', 'auto')
        if not self.working:
            self.working = True
            for _ in range(WORKERS):
                threading.Thread(target=self.work, daemon=True).start()
        send([('id', ident), ('size', self.disk.size), ('sector', self.disk.sector),
              ('direct', 1 if self.disk.direct else 0)])

    def block(self, ident, fields):
        if self.disk is None:
            raise ValueError('no disk is open')
        length = number(fields, 'n')
        parts = []
        end = 0
        for part in text(fields, 'p').split(','):
            start, size = (int(x) for x in part.split('-'))
            if start < end or size < 1 or start + size > length:
                raise ValueError('parts do not fit')
            end = start + size
            parts.append((start, size))
        base = number(fields, 'o')
        if base < 0 or base % GRAIN != 0 or length > BLOCK or base + length > self.disk.size:
            raise ValueError('no such block')
        known = bytes(bytearray.fromhex(text(fields, 'k'))) or None
        self.asks.put((self.disk, ident, base, length, parts, known))

    def work(self):
        try:
            reader = None
            while True:
                ask = self.asks.get()
                try:
                    if reader is None or reader.disk is not ask[0]:
                        reader = Reader(ask[0])
                    answer_block(reader, ask)
                except OSError as e:
                    if e.errno == errno.EPIPE:
                        os._exit(0)
                    fail(ask[1], e)
        except BaseException as e:
            sys.stderr.write('port-image helper: %s\n' % e)
            os._exit(1)


# --- commands

def run_script(ident, fields, script):
    """`sh` with the script in its environment: a command line would show it to everybody on the machine."""
    limit = number(fields, 'max')
    env = dict(os.environ, PORT_IMAGE_SCRIPT=script.decode('utf-8', 'surrogateescape'), LC_ALL='C')
    child = subprocess.Popen(
        ['sh', '-c', 's=$PORT_IMAGE_SCRIPT; unset PORT_IMAGE_SCRIPT; eval "$s"'],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
        start_new_session=True)
    deadline = time.monotonic() + number(fields, 'timeout') / 1000.0
    output = bytearray()
    cut = timed_out = 0
    fd = child.stdout.fileno()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            timed_out = 1
            break
        # a background process may keep the pipe open: the end of the shell counts too
        ready = select.select([fd], [], [], min(left, 0.2))[0]
        if ready:
            data = os.read(fd, 65536)
            if not data:
                break
            room = limit - len(output)
            output += data[:room]
            cut = cut or (1 if len(data) > room else 0)
        elif child.poll() is not None:
            break
    if not timed_out:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            timed_out = 1
    if timed_out:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except OSError:
            pass
        child.wait()
    child.stdout.close()
    send([('id', ident), ('status', child.returncode), ('timedout', timed_out), ('cut', cut)], [bytes(output)])


# --- freeze

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878


def sync_one(path):
    try:
        subprocess.call(['sync', '-f', path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL, timeout=600)
    except (OSError, subprocess.SubprocessError):
        pass


class Hooks:
    """One shell that quiesces databases, says `ready`, and undoes it when its input ends."""

    def __init__(self, script, timeout):
        self.timeout = timeout
        self.output = b''
        env = dict(os.environ, PORT_IMAGE_SCRIPT=script.decode('utf-8', 'surrogateescape'), LC_ALL='C')
        self.child = subprocess.Popen(
            ['sh', '-c', 's=$PORT_IMAGE_SCRIPT; unset PORT_IMAGE_SCRIPT; eval "$s"'],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        self.late = not self.wait_for(b'\nready\n')

    def wait_for(self, mark):
        deadline = time.monotonic() + self.timeout
        fd = self.child.stdout.fileno()
        while mark is None or mark not in b'\n' + self.output:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                return False
            data = os.read(fd, 65536)
            if not data:
                return True
            self.output = (self.output + data)[:256 * 1024]
        return True

    def end(self):
        try:
            self.child.stdin.close()
        except OSError:
            pass
        if not self.wait_for(None):
            self.late = True
            try:
                os.killpg(self.child.pid, signal.SIGKILL)
            except OSError:
                pass
        self.child.wait()


def watch(control, report, fds, timeout, hooks):
    """The watchdog: thaws when told, when time is over, and when helper or connection are gone. Never returns."""
    os.setsid()
    for sig in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(sig, signal.SIG_IGN)
    try:
        with open('/proc/self/oom_score_adj', 'w') as f:
            f.write('-1000')
    except OSError:
        pass
    state = {}
    first = None
    reported = False
    deadline = time.monotonic() + timeout
    why = None
    poll = select.poll()
    poll.register(control, select.POLLIN)
    # the connection: its end shows as a hang-up (POLLRDHUP for a socket); what it carries is the helper's
    poll.register(0, 0x2000)
    pending = b''
    try:
        while why not in ('told', 'helper'):
            left = deadline - time.monotonic()
            if why is None and left <= 0:
                why = 'timeout'
            if why is not None:
                thaw_known(fds, state)
                # a freeze that is under way when time ends comes late: it is waited for, and undone
                if not reported and 'F' not in state.values():
                    finish(report, why, first, hooks)
                    reported = True
            events = poll.poll(100 if why is not None else int(left * 1000) + 1)
            for fd, event in events:
                if fd == 0:
                    poll.unregister(0)
                    why = why or 'connection'
                    continue
                data = os.read(control, 4096)
                if not data:
                    why = 'helper'
                    break
                pending += data
                while b'\n' in pending:
                    line, pending = pending.split(b'\n', 1)
                    word = line.decode('ascii')
                    if word == 'T':
                        why = 'told'
                    else:
                        first = first or time.monotonic()
                        state[int(word[1:])] = word[0]
    finally:
        # what was being frozen when the helper died is frozen by now, or never will be
        for i in state:
            state[i] = 'D' if state[i] == 'F' else state[i]
        if thaw_known(fds, state) and why == 'told':
            why = 'elsewhere'
        if not reported:
            finish(report, why, first, hooks)
        os._exit(0)


def finish(report, why, first, hooks):
    took = 0 if first is None else time.monotonic() - first
    if hooks is not None:
        os.close(hooks)
    try:
        os.write(report, ('%s %d\n' % (why, took * 1000)).encode())
    except OSError:
        pass


def thaw_known(fds, state):
    """Thaws what is known to be frozen by us, outermost first. True when one was frozen no more."""
    missed = False
    for i in sorted(state, reverse=True):
        if state[i] == 'D':
            try:
                fcntl.ioctl(fds[i], FITHAW, 0)
            except OSError as e:
                if e.errno == errno.EINTR:
                    continue
                missed = missed or e.errno == errno.EINVAL
            state[i] = 'T'
    return missed


class Freezer:
    def __init__(self):
        self.fds = []
        self.state = {}
        self.frozen = False
        self.hooks = None

    def freeze(self, ident, fields, script):
        if self.frozen:
            raise ValueError('frozen already')
        skipped = []
        names = []
        seen = set()
        self.fds = []
        for path in sorted(fields.get('mount', []), key=lambda p: (-p.rstrip('/').count('/'), p)):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
                device = os.fstat(fd).st_dev
                if device in seen:
                    os.close(fd)
                    continue
                seen.add(device)
                self.fds.append(fd)
                names.append(path)
            except OSError as e:
                skipped.append((path, e.strerror))
        for path in names:
            sync_one(path)
        self.hooks = Hooks(script, number(fields, 'hooktimeout') / 1000.0) if script else None
        control, self.control = os.pipe()
        self.report, report = os.pipe()
        # the watchdog alone keeps the hooks' input open: their undoing follows the thaw, whoever dies
        hooks = os.dup(self.hooks.child.stdin.fileno()) if self.hooks else None
        self.watchdog = os.fork()
        if self.watchdog == 0:
            os.close(self.control)
            os.close(self.report)
            if self.hooks:
                self.hooks.child.stdin.close()
            watch(control, report, self.fds, number(fields, 'timeout') / 1000.0, hooks)
        os.close(control)
        os.close(report)
        if self.hooks:
            os.close(hooks)
            self.hooks.child.stdin.close()
        self.frozen = True
        self.result = None
        self.state = {}
        self.guard = threading.Thread(target=self.watch_watchdog, daemon=True)
        self.guard.start()
        frozen = []
        for i, fd in enumerate(self.fds):
            if self.result is not None:
                skipped.append((names[i], 'the time was over'))
                continue
            self.tell('F%d' % i)
            try:
                fcntl.ioctl(fd, FIFREEZE, 0)
                self.state[i] = 'D'
                self.tell('D%d' % i)
                frozen.append(names[i])
            except OSError as e:
                self.tell('E%d' % i)
                skipped.append((names[i], e.strerror))
        if self.result is not None and self.result[0] == 'lost':
            thaw_known(self.fds, self.state)
        send([('id', ident)] + [('frozen', p) for p in frozen] + [('skipped', p + '\n' + w) for p, w in skipped]
             + [('late', 1 if self.hooks and self.hooks.late else 0)],
             [self.hooks.output if self.hooks else b''])

    def watch_watchdog(self):
        """Its report; when it was killed, this process thaws in its place."""
        line = b''
        while not line.endswith(b'\n'):
            data = os.read(self.report, 100)
            if not data:
                break
            line += data
        if line:
            self.result = line.decode().split()
        else:
            self.result = ['lost', '0']
            thaw_known(self.fds, self.state)

    def tell(self, word):
        try:
            os.write(self.control, (word + '\n').encode())
        except OSError:
            pass

    def thaw(self):
        """How it ended, and for how many milliseconds the first file system was frozen."""
        self.tell('T')
        self.guard.join()
        os.waitpid(self.watchdog, 0)
        for fd in self.fds + [self.control, self.report]:
            os.close(fd)
        self.frozen = False
        if self.hooks:
            self.hooks.end()
        return self.result

    def answer_thaw(self, ident):
        if not self.frozen:
            raise ValueError('nothing is frozen')
        how, took = self.thaw()
        send([('id', ident), ('how', how), ('ms', took), ('late', 1 if self.hooks and self.hooks.late else 0)],
             [self.hooks.output if self.hooks else b''])


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.chdir('/')
    service = Service()
    freezer = Freezer()
    write_all(('\n@port-image ' + NONCE + ' hello\n').encode())
    send([('version', VERSION), ('language', 'python'), ('uid', os.getuid()), ('pid', os.getpid())])
    try:
        while True:
            frame = receive()
            if frame is None:
                break
            fields, payload = frame
            op = text(fields, 'op')
            ident = number(fields, 'id')
            try:
                if op == 'block':
                    service.block(ident, fields)
                elif op == 'open':
                    service.open(ident, fields)
                elif op == 'sh':
                    threading.Thread(target=run_script, args=(ident, fields, payload), daemon=True).start()
                elif op == 'freeze':
                    freezer.freeze(ident, fields, payload)
                elif op == 'thaw':
                    freezer.answer_thaw(ident)
                elif op == 'bye':
                    break
                else:
                    raise ValueError('unknown operation')
            except (OSError, ValueError) as e:
                fail(ident, e)
    except OSError as e:
        if e.errno != errno.EPIPE:
            raise
    finally:
        if freezer.frozen:
            freezer.thaw()
    sys.stdout = None
    os._exit(0)


main()
