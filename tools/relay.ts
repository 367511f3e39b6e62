/**
 * Joins stdin and stdout to a unix socket. QEMU starts one per guest connection: the machine's network is cut from
 * this one's, a socket in the file system is the only way across. Run: `node relay.ts SOCKET`.
 */
import { connect } from 'node:net';

const socket = connect({ path: process.argv[2] ?? '' });
socket.on('error', () => process.exit(1));
process.stdout.on('error', () => process.exit(1));
process.stdin.pipe(socket);
socket.pipe(process.stdout);
socket.on('close', () => process.exit(0));
