import { ControlClient } from "./client.ts";
import { findFormationFile, formationNameIn, type FormationFile } from "./formation-file.ts";
import { Style } from "./output/style.ts";
import { renderTable, type Column } from "./output/table.ts";
import { findPlatform } from "./platform.ts";
import type { Shell } from "./shell.ts";
import { usageError } from "./usage-error.ts";

export interface GlobalOptions {
  readonly formation?: string;
  readonly file?: string;
  readonly state?: string;
  readonly json?: boolean;
}

/** What every verb works with: the platform, the formation meant, and the two outputs. */
export class Context {
  readonly shell: Shell;
  readonly options: GlobalOptions;
  /** For standard output. */
  readonly style: Style;
  /** For standard error. */
  readonly noteStyle: Style;
  #client: ControlClient | undefined;

  constructor(shell: Shell, options: GlobalOptions) {
    this.shell = shell;
    this.options = options;
    this.style = new Style(shell.stdout.color);
    this.noteStyle = new Style(shell.stderr.color);
  }

  get client(): ControlClient {
    if (this.#client === undefined) {
      const { url, token, startHint } = findPlatform(this.shell, this.options.state);
      this.#client = new ControlClient({ baseUrl: url, token, startHint, signal: this.shell.signal });
    }
    return this.#client;
  }

  get json(): boolean {
    return this.options.json === true;
  }

  /** The formation file meant, if there is one. */
  file(): FormationFile | undefined {
    return findFormationFile(this.shell, this.options.file);
  }

  /** The manifest to deploy. @throws UserError "usage" when there is none. */
  requireFile(): FormationFile {
    const file = this.file();
    if (file !== undefined) return file;
    throw usageError(`There is no gilliam.yaml in ${this.shell.cwd} or above`, {
      next: "Write one (see README.md), or name it: --file PATH.",
    });
  }

  /** `--formation`, else the name in the manifest at hand; undefined when neither is there. */
  formationIfAny(): string | undefined {
    if (this.options.formation !== undefined) return this.options.formation;
    const file = this.file();
    if (file === undefined) return undefined;
    const name = formationNameIn(file);
    if (name !== undefined) return name;
    throw usageError(`${file.shown} names no formation`, { next: "Add a line like `formation: shop`." });
  }

  formation(): string {
    const name = this.formationIfAny();
    if (name !== undefined) return name;
    throw usageError(`Which formation? There is no gilliam.yaml in ${this.shell.cwd} or above`, {
      next: "Name it: --formation NAME. `gilliam status` lists them.",
    });
  }

  /** Data: to standard output. */
  print(text: string): void {
    this.shell.stdout.write(`${text}\n`);
  }

  printJson(value: unknown): void {
    this.print(JSON.stringify(value, null, 2));
  }

  /** Progress and hints: to standard error. */
  note(text: string): void {
    this.shell.stderr.write(`${text}\n`);
  }

  printTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    this.print(renderTable(rows, columns, { width: this.shell.stdout.columns(), heading: this.style.dim }));
  }
}
