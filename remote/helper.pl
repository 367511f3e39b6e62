# As helper.py, for machines without a usable python3: perl-base alone, with dd and sha256sum of coreutils. Slower, the same
# protocol (docs/capture-live.md), never compresses. The sender puts a line `my $NONCE = "...";` before this text.
use strict;
use warnings;
use Fcntl;
use POSIX ();
use Errno qw(EINTR EINVAL);

use constant {
    VERSION     => 1,
    BLOCK       => 4 * 1024 * 1024,
    MAX_HEADER  => 256 * 1024,
    MAX_PAYLOAD => 8 * 1024 * 1024,
    # reads begin and end on this grain: right for O_DIRECT whatever the sector size
    GRAIN       => 4096,
    # programs that read ahead of the block in hand
    AHEAD       => 3,
    BLKSSZGET   => 0x1268,
    FIFREEZE    => 0xC0045877,
    FITHAW      => 0xC0045878,
    F_SETPIPE   => 1031,
};

my $ZERO = "\0" x BLOCK;
my $HAS_SHA = eval { require Digest::SHA; 1 };
my $input   = '';
my @asks;
my %disk;
my %freeze;

# --- frames

sub write_all {
    my ($data) = @_;
    my $at = 0;
    while ($at < length $data) {
        my $wrote = syswrite(STDOUT, $data, length($data) - $at, $at);
        if (!defined $wrote) {
            next if $! == EINTR;
            leave();
        }
        $at += $wrote;
    }
}

sub encode {
    my ($text) = @_;
    $text =~ s/([^A-Za-z0-9_.~,:-])/sprintf('%%%02X', ord $1)/ge;
    return $text;
}

# send(PAYLOAD, NAME => VALUE, ...)
sub send_frame {
    my ($payload, @fields) = @_;
    my @pairs;
    while (my ($name, $value) = splice @fields, 0, 2) { push @pairs, "$name=" . encode($value) }
    my $header = join '&', @pairs;
    write_all(pack('NN', length $header, length $payload) . $header);
    write_all($payload) if length $payload;
}

sub fail_ask {
    my ($id, $text) = @_;
    $text =~ s/ at \(eval.*//s;
    send_frame('', id => $id, error => substr($text, 0, 1000), errno => 0);
}

# One frame out of what was read, or nothing.
sub next_frame {
    return if length $input < 8;
    my ($header_size, $size) = unpack 'NN', $input;
    die "frame too large\n" if $header_size > MAX_HEADER || $size > MAX_PAYLOAD;
    return if length($input) < 8 + $header_size + $size;
    my $header  = substr $input, 8, $header_size;
    my $payload = substr $input, 8 + $header_size, $size;
    substr($input, 0, 8 + $header_size + $size) = '';
    my %fields;
    for my $pair (split /&/, $header) {
        my ($name, $value) = split /=/, $pair, 2;
        $value =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge;
        push @{ $fields{$name} }, $value;
    }
    return (\%fields, $payload);
}

sub text {
    my ($fields, $name, $otherwise) = @_;
    return exists $fields->{$name} ? $fields->{$name}[0] : defined $otherwise ? $otherwise : '';
}

# Seconds that no change of the clock touches.
sub now {
    open my $file, '<', '/proc/uptime' or return time;
    my $line = <$file>;
    return (split ' ', $line)[0];
}

# Waits until one of the handles can be read, for so many seconds at most (undef: for ever).
sub readable {
    my ($seconds, @handles) = @_;
    my $bits = '';
    vec($bits, fileno $_, 1) = 1 for @handles;
    my $found = select my $ready = $bits, undef, undef, $seconds;
    return () if $found <= 0;
    return grep { vec $ready, fileno $_, 1 } @handles;
}

# --- programs

# Starts a program with pipes at its stdin (when wanted), stdout and stderr.
sub start {
    my ($with_input, $same_stderr, $env, @command) = @_;
    my ($in_r, $in_w, $out_r, $out_w, $err_r, $err_w);
    pipe $in_r, $in_w if $with_input;
    pipe $out_r, $out_w or die "no pipe: $!\n";
    pipe $err_r, $err_w or die "no pipe: $!\n" if !$same_stderr;
    fcntl $out_r, F_SETPIPE, 1024 * 1024;
    my $pid = fork;
    die "no process: $!\n" if !defined $pid;
    if ($pid == 0) {
        POSIX::setsid();
        $SIG{PIPE} = 'DEFAULT';
        POSIX::dup2($with_input ? fileno $in_r : POSIX::open('/dev/null', O_RDONLY), 0);
        POSIX::dup2(fileno $out_w, 1);
        POSIX::dup2($same_stderr ? 1 : fileno $err_w, 2);
        POSIX::close($_) for 3 .. 255;
        %ENV = (%ENV, LC_ALL => 'C', %$env);
        exec { $command[0] } @command or POSIX::_exit(127);
    }
    close $out_w;
    close $err_w if $err_w;
    close $in_r if $in_r;
    return { pid => $pid, in => $in_w, out => $out_r, err => $err_r };
}

sub slurp {
    my ($handle, $size) = @_;
    my $data = '';
    while ($size > length $data) {
        my $got = sysread $handle, $data, $size - length $data, length $data;
        next if !defined $got && $! == EINTR;
        last if !$got;
    }
    return $data;
}

# --- disks

sub open_disk {
    my ($id, $fields) = @_;
    my $path = text($fields, 'path');
    stat $path or die "$!\n";
    die "Block device required\n" if !(-b _ || (text($fields, 'regular') eq '1' && -f _));
    my $block = -b _;
    %disk = (path => $path, direct => 1, sector => 512);
    my $file;
    if (!sysopen $file, $path, O_RDONLY | Fcntl::O_DIRECT()) {
        die "$!\n" if $! != EINVAL;
        $disk{direct} = 0;
        sysopen $file, $path, O_RDONLY or die "$!\n";
    }
    $disk{size} = int sysseek $file, 0, 2;
    if ($block) {
        my $answer = pack 'i', 0;
        ioctl $file, BLKSSZGET, $answer and $disk{sector} = unpack 'i', $answer;
    }
    close $file;
    send_frame('', id => $id, size => $disk{size}, sector => $disk{sector}, direct => $disk{direct});
}

# dd reads past the page cache, which may hold what the disk was before; perl has no aligned memory for that.
sub start_read {
    my ($offset, $size) = @_;
    my $flags = ($disk{direct} ? 'direct' : 'nocache') . ',skip_bytes,count_bytes';
    return start(0, 0, {}, 'dd', "if=$disk{path}", "iflag=$flags", "bs=$size", "skip=$offset", "count=$size");
}

# What was read, and whether the medium is at fault for the rest.
sub end_read {
    my ($reading, $wanted, $limit) = @_;
    my $data = slurp($reading->{out}, $limit);
    close $reading->{out};
    my $said = slurp($reading->{err}, 65536);
    close $reading->{err};
    waitpid $reading->{pid}, 0;
    return $data if length $data >= $wanted;
    if ($said !~ m{Input/output error|Remote I/O error|No data available|Invalid or incomplete|timed out}) {
        my ($line) = grep { !/records (in|out)|copied|^\s*$/ } split /\n/, $said;
        die((defined $line ? $line : 'the disk ends early') . "\n");
    }
    return undef;
}

sub prepare {
    my ($id, $fields) = @_;
    die "no disk is open\n" if !%disk;
    my $ask = { id => $id, base => int text($fields, 'o'), length => int text($fields, 'n'), known => text($fields, 'k') };
    my $end = 0;
    for my $part (split /,/, text($fields, 'p')) {
        my ($start, $size) = $part =~ /^(\d+)-(\d+)$/ or die "parts do not fit\n";
        die "parts do not fit\n" if $start < $end || $size < 1 || $start + $size > $ask->{length};
        $end = $start + $size;
        push @{ $ask->{parts} }, [ $start, $size ];
    }
    die "no such block\n"
        if $ask->{base} % GRAIN || $ask->{length} > BLOCK || $ask->{base} + $ask->{length} > $disk{size} || !$end;
    # one run from the first to the last part: a process for each would cost more than the bytes between them
    my $first = $ask->{parts}[0][0];
    $ask->{first} = $first - $first % GRAIN;
    $ask->{end}   = $end;
    push @asks, $ask;
}

# So much around the byte range as the grain asks for.
sub span {
    my ($ask, $start, $end, $grain) = @_;
    my $from = $start - $start % $grain;
    my $to   = $end + (-$end) % $grain;
    return ($ask->{base} + $from, $to - $from, $from);
}

sub start_ask {
    my ($ask) = @_;
    my ($offset, $size) = span($ask, $ask->{first}, $ask->{end}, GRAIN);
    $ask->{size}    = $size;
    $ask->{reading} = start_read($offset, $size);
}

# Reads around what cannot be read, in ever smaller pieces; fills $$block.
sub rescue {
    my ($ask, $block, $start, $end, $bad, @steps) = @_;
    my ($step, @smaller) = @steps;
    for (my $at = $start - $start % $step ; $at < $end ; $at += $step) {
        my ($from, $to) = ($at > $start ? $at : $start, $at + $step < $end ? $at + $step : $end);
        my ($offset, $size, $first) = span($ask, $from, $to, $step < GRAIN ? $step : GRAIN);
        my $data = end_read(start_read($offset, $size), $to - $first, $size);
        if (defined $data) {
            substr($$block, $from, $to - $from) = substr $data, $from - $first, $to - $from;
        }
        elsif (@smaller) { rescue($ask, $block, $from, $to, $bad, @smaller) }
        else             { push @$bad, [ $from, $to ] }
    }
}

sub sum_of {
    return Digest::SHA::sha256_hex($_[0]) if $HAS_SHA;
    my $summing = start(1, 0, {}, 'sha256sum');
    my $at = 0;
    while ($at < length $_[0]) {
        my $wrote = syswrite $summing->{in}, $_[0], length($_[0]) - $at, $at;
        die "sha256sum: $!\n" if !defined $wrote;
        $at += $wrote;
    }
    close $summing->{in};
    my $said = slurp($summing->{out}, 1000);
    close $summing->{out};
    close $summing->{err};
    waitpid $summing->{pid}, 0;
    die "sha256sum gives no sum\n" if $said !~ /^([0-9a-f]{64})\b/;
    return $1;
}

my %zero_sums;

sub answer_block {
    my ($ask) = @_;
    my ($length, $first, $end) = @$ask{qw(length first end)};
    my @bad;
    my $raw = end_read($ask->{reading}, $end - $first, $ask->{size});
    my $block = substr $ZERO, 0, $length;
    my @unread;
    if (defined $raw) {
        for my $part (@{ $ask->{parts} }) {
            my ($start, $size) = @$part;
            substr($block, $start, $size) = substr $raw, $start - $first, $size;
        }
    }
    else {
        my @steps = grep { $_ >= $disk{sector} } 64 * 1024, GRAIN, 512;
        rescue($ask, \$block, $_->[0], $_->[0] + $_->[1], \@unread, @steps) for @{ $ask->{parts} };
    }
    undef $raw;
    for my $range (@unread) {
        if (@bad && $bad[-1][1] == $range->[0]) { $bad[-1][1] = $range->[1] }
        else                                    { push @bad, [@$range] }
    }
    my @fields = (id => $ask->{id});
    push @fields, bad => join ',', map { $_->[0] . '-' . ($_->[1] - $_->[0]) } @bad if @bad;
    my ($kind, $sum);
    if ($block eq substr $ZERO, 0, $length) {
        $sum = $zero_sums{$length} ||= sum_of($block);
        $kind = 'zero';
    }
    else {
        $sum  = sum_of($block);
        $kind = 'data';
    }
    $kind = 'same' if $sum eq $ask->{known};
    push @fields, kind => $kind, sha => $sum;
    return send_frame('', @fields) if $kind ne 'data';
    my @parts = @{ $ask->{parts} };
    return send_frame($block, @fields) if @parts == 1 && $parts[0][1] == $length;
    send_frame(join('', map { substr $block, $_->[0], $_->[1] } @parts), @fields);
}

# --- commands

# The script goes in the environment: a command line would show it to everybody on the machine.
sub start_script {
    my ($with_input, $script) = @_;
    return start($with_input, 1, { PORT_IMAGE_SCRIPT => $script },
        'sh', '-c', 's=$PORT_IMAGE_SCRIPT; unset PORT_IMAGE_SCRIPT; eval "$s"');
}

sub run_script {
    my ($id, $fields, $script) = @_;
    my $child    = start_script(0, $script);
    my $deadline = now() + text($fields, 'timeout') / 1000;
    my ($output, $cut, $late, $status) = ('', 0, 0, undef);
    while (1) {
        my $left = $deadline - now();
        if ($left <= 0) { $late = 1; last }
        if (readable($left < 0.2 ? $left : 0.2, $child->{out})) {
            my $got = sysread $child->{out}, my $data, 65536;
            last if !$got;
            my $room = text($fields, 'max') - length $output;
            $cut = 1 if $got > $room;
            $output .= substr $data, 0, $room if $room > 0;
        }
        # a background process may keep the pipe open: the end of the shell counts too
        elsif (!defined $status && waitpid($child->{pid}, POSIX::WNOHANG()) > 0) { $status = $?; last }
    }
    while (!defined $status && !$late) {
        if (waitpid($child->{pid}, POSIX::WNOHANG()) > 0) { $status = $? }
        elsif (now() > $deadline)                         { $late = 1 }
        else                                              { select undef, undef, undef, 0.02 }
    }
    if (!defined $status) {
        kill 'KILL', -$child->{pid};
        waitpid $child->{pid}, 0;
        $status = $?;
    }
    close $child->{out};
    my $code = $status & 127 ? -($status & 127) : $status >> 8;
    send_frame($output, id => $id, status => $code, timedout => $late, cut => $cut);
}

# --- freeze

sub thaw_known {
    my ($files, $state) = @_;
    my $missed = 0;
    for my $i (sort { $b <=> $a } keys %$state) {
        next if $state->{$i} ne 'D';
        if (!ioctl($files->[$i], FITHAW, 0)) {
            next if $! == EINTR;
            $missed ||= $! == EINVAL;
        }
        $state->{$i} = 'T';
    }
    return $missed;
}

# The watchdog: thaws when told, when time is over, and when the helper is gone (which ends with its connection).
sub watch {
    my ($control, $report, $files, $timeout, $hooks) = @_;
    POSIX::setsid();
    $SIG{$_} = 'IGNORE' for qw(HUP INT TERM PIPE);
    if (open my $file, '>', '/proc/self/oom_score_adj') { syswrite $file, '-1000'; close $file }
    my %state;
    my ($began, $why, $reported, $pending) = (undef, '', 0, '');
    my $deadline = now() + $timeout;
    my $finish = sub {
        close $hooks if $hooks;
        my $took = defined $began ? int((now() - $began) * 1000) : 0;
        syswrite $report, "$why $took\n";
        $reported = 1;
    };
    while ($why ne 'told' && $why ne 'helper') {
        my $left = $deadline - now();
        $why = 'timeout' if !$why && $left <= 0;
        if ($why) {
            thaw_known($files, \%state);
            # a freeze that is under way when time ends comes late: it is waited for, and undone
            $finish->() if !$reported && !grep { $_ eq 'F' } values %state;
        }
        next if !readable($why ? 0.1 : $left, $control);
        my $got = sysread $control, $pending, 4096, length $pending;
        next if !defined $got && $! == EINTR;
        if (!$got) { $why = 'helper'; last }
        while ($pending =~ s/^(\w)(\d*)\n//) {
            if ($1 eq 'T') { $why = 'told' }
            else {
                $began = now() if !defined $began;
                $state{$2} = $1;
            }
        }
    }
    # what was being frozen when the helper died is frozen by now, or never will be
    for (values %state) { $_ = 'D' if $_ eq 'F' }
    $why = 'elsewhere' if thaw_known($files, \%state) && $why eq 'told';
    $finish->() if !$reported;
    POSIX::_exit(0);
}

# Reads the hooks' output up to a mark (undef: to its end).
sub hooks_until {
    my ($hooks, $mark) = @_;
    my $deadline = now() + $hooks->{timeout};
    while (!defined $mark || index("\n" . $hooks->{output}, $mark) < 0) {
        my $left = $deadline - now();
        return 0 if $left <= 0 || !readable($left, $hooks->{out});
        my $got = sysread $hooks->{out}, my $data, 65536;
        return 1 if !$got;
        $hooks->{output} = substr $hooks->{output} . $data, 0, 256 * 1024;
    }
    return 1;
}

sub depth {
    my ($path) = @_;
    $path =~ s{/+$}{};
    return $path =~ tr{/}{};
}

sub freeze_all {
    my ($id, $fields, $script) = @_;
    die "frozen already\n" if $freeze{frozen};
    my (@files, @names, @skipped, %seen, @frozen);
    for my $path (sort { depth($b) <=> depth($a) || $a cmp $b } @{ $fields->{mount} || [] }) {
        if (!sysopen my $file, $path, O_RDONLY | Fcntl::O_DIRECTORY()) { push @skipped, "$path\n$!" }
        else {
            my $device = (stat $file)[0];
            next if $seen{$device}++;
            push @files, $file;
            push @names, $path;
        }
    }
    for my $path (@names) {
        my $syncing = start(0, 0, {}, 'sync', '-f', $path);
        slurp($syncing->{out}, 1);
        close $syncing->{out};
        close $syncing->{err};
        waitpid $syncing->{pid}, 0;
    }
    my $hooks;
    if (length $script) {
        $hooks = start_script(1, $script);
        $hooks->{timeout} = text($fields, 'hooktimeout') / 1000;
        $hooks->{output}  = '';
        $hooks->{late}    = hooks_until($hooks, "\nready\n") ? 0 : 1;
    }
    pipe my $control_r, my $control or die "no pipe: $!\n";
    pipe my $report, my $report_w or die "no pipe: $!\n";
    my $pid = fork;
    die "no process: $!\n" if !defined $pid;
    if ($pid == 0) {
        close $control;
        close $report;
        watch($control_r, $report_w, \@files, text($fields, 'timeout') / 1000, $hooks && $hooks->{in});
    }
    # the watchdog alone keeps the hooks' input open: their undoing follows the thaw, whoever dies
    close $hooks->{in} if $hooks;
    close $control_r;
    close $report_w;
    %freeze = (frozen => 1, files => \@files, state => {}, control => $control, report => $report,
        pid => $pid, hooks => $hooks, result => undef);
    for my $i (0 .. $#files) {
        check_watchdog(0);
        if ($freeze{result}) { push @skipped, "$names[$i]\nthe time was over"; next }
        syswrite $control, "F$i\n";
        if (ioctl $files[$i], FIFREEZE, 0) {
            $freeze{state}{$i} = 'D';
            syswrite $control, "D$i\n";
            push @frozen, $names[$i];
        }
        else {
            my $why = "$!";
            syswrite $control, "E$i\n";
            push @skipped, "$names[$i]\n$why";
        }
    }
    check_watchdog(0);
    send_frame($hooks ? $hooks->{output} : '', id => $id, (map { (frozen => $_) } @frozen),
        (map { (skipped => $_) } @skipped), late => $hooks ? $hooks->{late} : 0);
}

# The watchdog's report, when there is one; when it was killed, this process thaws in its place.
sub check_watchdog {
    my ($seconds) = @_;
    while (!$freeze{result} && readable($seconds, $freeze{report})) {
        my $line = slurp_line($freeze{report});
        if (length $line) { $freeze{result} = [ split ' ', $line ] }
        else              { $freeze{result} = [ 'lost', 0 ] }
    }
    thaw_known($freeze{files}, $freeze{state}) if $freeze{result} && $freeze{result}[0] eq 'lost';
}

sub slurp_line {
    my ($handle) = @_;
    my $line = '';
    while ($line !~ /\n/) {
        my $got = sysread $handle, $line, 100, length $line;
        next if !defined $got && $! == EINTR;
        last if !$got;
    }
    return $line;
}

sub thaw_all {
    syswrite $freeze{control}, "T\n";
    check_watchdog(undef);
    waitpid $freeze{pid}, 0;
    my ($hooks, $result) = @freeze{qw(hooks result)};
    if ($hooks && !hooks_until($hooks, undef)) {
        $hooks->{late} = 1;
        kill 'KILL', -$hooks->{pid};
    }
    waitpid $hooks->{pid}, 0 if $hooks;
    %freeze = ();
    return ($hooks, @$result);
}

sub answer_thaw {
    my ($id) = @_;
    die "nothing is frozen\n" if !$freeze{frozen};
    my ($hooks, $how, $took) = thaw_all();
    send_frame($hooks ? $hooks->{output} : '', id => $id, how => $how, ms => $took, late => $hooks ? $hooks->{late} : 0);
}

# --- the loop

sub leave {
    thaw_all() if $freeze{frozen};
    POSIX::_exit(0);
}

sub handle {
    my ($fields, $payload) = @_;
    my ($op, $id) = (text($fields, 'op'), int text($fields, 'id', 0));
    eval {
        if    ($op eq 'block')  { prepare($id, $fields) }
        elsif ($op eq 'open')   { open_disk($id, $fields) }
        elsif ($op eq 'sh')     { run_script($id, $fields, $payload) }
        elsif ($op eq 'freeze') { freeze_all($id, $fields, $payload) }
        elsif ($op eq 'thaw')   { answer_thaw($id) }
        elsif ($op eq 'bye')    { leave() }
        else                    { die "unknown operation\n" }
        1;
    } or fail_ask($id, $@);
}

$SIG{PIPE} = 'IGNORE';
binmode STDOUT;
chdir '/';
write_all("\n\@port-image $NONCE hello\n");
send_frame('', version => VERSION, language => 'perl', uid => $>, pid => $$);
while (1) {
    while (my ($fields, $payload) = next_frame()) { handle($fields, $payload) }
    for my $ask (@asks[ 0 .. ($#asks < AHEAD - 1 ? $#asks : AHEAD - 1) ]) {
        next if $ask->{reading} || $ask->{failed};
        eval { start_ask($ask); 1 } or $ask->{failed} = $@;
    }
    my @watched = (\*STDIN);
    push @watched, $freeze{report} if $freeze{frozen} && !$freeze{result};
    my @ready = readable(@asks ? 0 : undef, @watched);
    check_watchdog(0) if $freeze{frozen} && !$freeze{result};
    if (grep { fileno $_ == 0 } @ready) {
        my $got = sysread STDIN, $input, 1024 * 1024, length $input;
        next if !defined $got && $! == EINTR;
        leave() if !$got;
        next;
    }
    if (my $ask = shift @asks) {
        eval { die $ask->{failed} if $ask->{failed}; answer_block($ask); 1 } or fail_ask($ask->{id}, $@);
    }
}
