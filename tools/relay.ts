/**
 * Joins stdin and stdout to a TCP port of this machine's loopback. QEMU starts one per guest connection, because a
 * restricted user-mode network lets the guest reach nothing but such forwards. Run: `node relay.ts PORT`.
 */
import { connect } from 'node:net';

const socket = connect({ host: '127.0.0.1', port: Number(process.argv[2]) });
socket.on('error', () => process.exit(1));
process.stdout.on('error', () => process.exit(1));
process.stdin.pipe(socket);
socket.pipe(process.stdout);
socket.on('close', () => process.exit(0));
