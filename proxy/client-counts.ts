/** How many connections each client address has open at one listener. */
export class ClientCounts<C> {
  readonly #counts = new Map<string, number>();
  readonly #addresses = new Map<C, string>();

  count(address: string): number {
    return this.#counts.get(address) ?? 0;
  }

  enter(connection: C, address: string): void {
    this.#addresses.set(connection, address);
    this.#counts.set(address, this.count(address) + 1);
  }

  /** The same connection under another object. */
  replace(connection: C, successor: C): void {
    const address = this.#addresses.get(connection);
    if (address === undefined) return;
    this.#addresses.delete(connection);
    this.#addresses.set(successor, address);
  }

  leave(connection: C): void {
    const address = this.#addresses.get(connection);
    if (address === undefined) return;
    this.#addresses.delete(connection);
    const left = this.count(address) - 1;
    if (left > 0) this.#counts.set(address, left);
    else this.#counts.delete(address);
  }
}
