import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import tar from "tar-fs";
import { UserError } from "../../base/errors.ts";
import { formatBytes } from "../../base/units.ts";

export interface UnpackLimits {
  readonly bytesMax: number;
  readonly filesMax: number;
}

/** Writes a fetched archive to `file`; throws unless it is what its digest says, all of it. */
export async function storeArchive(
  body: ReadableStream<Uint8Array>,
  digest: string,
  file: string,
  bytesMax: number,
  signal: AbortSignal,
): Promise<void> {
  const hash = createHash("sha256");
  let bytes = 0;
  const check = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      hash.update(chunk);
      done(bytes > bytesMax ? tooBig(bytesMax) : null, chunk);
    },
  });
  await pipeline(Readable.fromWeb(body as never), check, createWriteStream(file, { mode: 0o600 }), {
    signal,
  });
  const got = `sha256:${hash.digest("hex")}`;
  if (got !== digest) throw new Error(`the archive is damaged: it should be ${digest} and is ${got}`);
}

/**
 * Unpacks a tar archive into an empty folder. Only files, folders, links and symbolic links that stay inside; no
 * devices, no owners, no set-uid bits. Throws a UserError that names the first entry that is not allowed.
 */
export async function unpackArchive(file: string, folder: string, limits: UnpackLimits): Promise<void> {
  let bytes = 0;
  let files = 0;
  let problem: UserError | undefined;
  const refuse = (text: string) => {
    problem ??= new UserError(text, { code: "bad_archive" });
    return true;
  };
  const extract = tar.extract(folder, {
    ignore: (_name, header) => {
      if (problem !== undefined || header === undefined) return true;
      bytes += header.size ?? 0;
      files += 1;
      if (bytes > limits.bytesMax) problem = tooBig(limits.bytesMax);
      else if (files > limits.filesMax) return refuse(`The source has more than ${limits.filesMax} files`);
      else if (!["file", "directory", "link", "symlink"].includes(header.type ?? "")) {
        return refuse(
          `The source archive holds "${header.name}", a ${header.type}: only files and folders are allowed`,
        );
      } else if (header.name.split("/").includes("..")) {
        return refuse(`The source archive holds "${header.name}", which leads out of it`);
      }
      return problem !== undefined;
    },
  });
  try {
    await pipeline(createReadStream(file), extract);
  } catch (error) {
    throw new UserError("The source archive cannot be unpacked", { code: "bad_archive", cause: error });
  }
  if (problem !== undefined) throw problem;
}

function tooBig(bytesMax: number): UserError {
  return new UserError(`The source is larger than ${formatBytes(bytesMax)}`, {
    code: "source_too_big",
    next: "Leave data and build results out of it with a .gilliamignore file.",
  });
}
