import { chmodSync, existsSync, lstatSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pack as packTar } from "tar-fs";
import { UserError, messageOf } from "../../../base/errors.ts";
import { LABELS } from "./container-options.ts";
import { APP_FOLDER, DOCKERFILE, type ImagePacker, type PackRequest } from "../../image-packer.ts";
import type { Engine } from "./engine.ts";

const REPOSITORY = "gilliam-image";

/**
 * A folder becomes one layer on the base image. A folder with a Dockerfile is built as that says, in the host's network, without any of the host's folders.
 */
export class EnginePacker implements ImagePacker {
  readonly #engine: Engine;
  readonly #base: () => Promise<string>;

  constructor(engine: Engine, base: () => Promise<string>) {
    this.#engine = engine;
    this.#base = base;
  }

  async known(): Promise<ReadonlySet<string>> {
    const images = await this.#engine.listImages({ [LABELS.part]: "image" });
    const tags = images.flatMap(({ tags }) => tags).filter((tag) => tag.startsWith(`${REPOSITORY}:`));
    return new Set(tags.map((tag) => `sha256:${tag.slice(REPOSITORY.length + 1)}`));
  }

  referenceOf(image: string): string {
    return `${REPOSITORY}:${image.replace(/^sha256:/, "")}`;
  }

  async pack({ image, folder, onText, signal }: PackRequest): Promise<void> {
    const options = {
      t: this.referenceOf(image),
      labels: { [LABELS.part]: "image" },
      networkmode: "host",
      forcerm: true,
    };
    const base = await this.#base();
    if (existsSync(join(folder, DOCKERFILE))) {
      await this.#engine.build(Readable.from(packTar(folder)), options, onText, signal);
      return;
    }
    moveEnvironment(folder);
    const recipe = `FROM ${base}\nCOPY app ${APP_FOLDER}\nWORKDIR ${APP_FOLDER}\n`;
    const context = packTar(folder, {
      map: (header) => ({ ...header, name: join("app", header.name) }),
      finalize: false,
      finish: (tar) => {
        tar.entry({ name: DOCKERFILE }, recipe);
        tar.finalize();
      },
    });
    await this.#engine.build(Readable.from(context), options, onText, signal);
  }

  async remove(image: string): Promise<void> {
    try {
      await this.#engine.removeImage(this.referenceOf(image));
    } catch (error) {
      // A container still stands on it: it goes with the next collection.
      throw new UserError(`image ${image} is still in use: ${messageOf(error)}`, {
        code: "image_in_use",
        cause: error,
      });
    }
  }
}

/** Programs of a virtual environment name their Python by the path they were installed at. */
function moveEnvironment(folder: string): void {
  const programs = join(folder, ".venv", "bin");
  if (!existsSync(programs)) return;
  for (const name of readdirSync(programs)) {
    const path = join(programs, name);
    if (!lstatSync(path).isFile()) continue;
    const text = readFileSync(path, "latin1");
    if (!text.startsWith(`#!${folder}/`)) continue;
    chmodSync(path, 0o755);
    writeFileSync(path, `#!${APP_FOLDER}/${text.slice(folder.length + 3)}`, "latin1");
  }
}
