import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pack } from "tar-fs";
import type { Engine } from "./engine.ts";

/**
 * The program that owns a network namespace: it waits, for ever, and does nothing else. An ELF file (elf(5)) of one
 * loadable segment, put together here so that it needs neither a compiler nor a base image; it takes 12 KiB of memory.
 */
const PROGRAMS: Readonly<Record<string, { machine: number; code: readonly number[] }>> = {
  // mov eax, 34 (pause); syscall; jmp to the start
  x64: { machine: 62, code: [0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7] },
  // mov x0..x3, #0; mov x8, #73 (ppoll); svc #0; b to the start
  arm64: {
    machine: 183,
    code: [
      0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28,
      0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
    ],
  },
};

const LOAD_ADDRESS = 0x400000n;
const IMPORT_MS_MAX = 60_000;
const ELF_HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;

/** Undefined for machines it was never written for. */
export function pauseProgram(architecture: string): Buffer | undefined {
  const program = PROGRAMS[architecture];
  if (program === undefined) return undefined;
  const headers = ELF_HEADER_BYTES + PROGRAM_HEADER_BYTES;
  const size = BigInt(headers + program.code.length);
  const file = Buffer.alloc(headers);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  file.writeUInt16LE(2, 16); // An executable.
  file.writeUInt16LE(program.machine, 18);
  file.writeUInt32LE(1, 20);
  file.writeBigUInt64LE(LOAD_ADDRESS + BigInt(headers), 24); // Entry point.
  file.writeBigUInt64LE(BigInt(ELF_HEADER_BYTES), 32); // The program header follows.
  file.writeUInt16LE(ELF_HEADER_BYTES, 52);
  file.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  file.writeUInt16LE(1, 56);
  const at = ELF_HEADER_BYTES;
  file.writeUInt32LE(1, at); // To be loaded,
  file.writeUInt32LE(5, at + 4); // readable and executable.
  file.writeBigUInt64LE(LOAD_ADDRESS, at + 16);
  file.writeBigUInt64LE(LOAD_ADDRESS, at + 24);
  file.writeBigUInt64LE(size, at + 32);
  file.writeBigUInt64LE(size, at + 40);
  file.writeBigUInt64LE(0x1000n, at + 48);
  return Buffer.concat([file, Buffer.from(program.code)]);
}

/** Makes the image unless it is there; returns its name. */
export async function ensurePauseImage(engine: Engine, architecture: string): Promise<string> {
  const program = pauseProgram(architecture);
  if (program === undefined) throw new Error(`there is no pause program for ${architecture}`);
  const digest = createHash("sha256").update(program).digest("hex").slice(0, 12);
  const reference = `gilliam-pause:${digest}`;
  if ((await engine.image(reference)) !== undefined) return reference;
  const folder = mkdtempSync(join(tmpdir(), "gilliam-pause-"));
  try {
    writeFileSync(join(folder, "pause"), program, { mode: 0o755 });
    const changes = ['ENTRYPOINT ["/pause"]', "LABEL gilliam.part=pause"];
    await engine.importImage(
      Readable.from(pack(folder)),
      reference,
      changes,
      AbortSignal.timeout(IMPORT_MS_MAX),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
  return reference;
}
