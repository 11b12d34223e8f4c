/**
 * Entries by key, at most so many and so large together; the one that was longest unused goes first.
 */
export class RecentEntries<Value> {
  private readonly entries = new Map<
    string,
    { readonly value: Value; readonly size: number; readonly until: number }
  >()
  private used = 0
  private readonly capacity: number
  private readonly maxBytes: number
  constructor(capacity: number, maxBytes: number) {
    this.capacity = capacity
    this.maxBytes = maxBytes
  }

  get count(): number {
    return this.entries.size
  }

  get bytes(): number {
    return this.used
  }

  get(key: string, now: number): Value | undefined {
    const entry = this.entries.get(key)
    if (entry === undefined) return undefined
    this.entries.delete(key)
    if (now >= entry.until) {
      this.used -= entry.size
      return undefined
    }
    // A map remembers the order of insertion: to use is to insert again.
    this.entries.set(key, entry)
    return entry.value
  }

  /** @param until milliseconds since the epoch at which the entry is no longer found */
  set(key: string, value: Value, size: number, until: number): void {
    this.remove(key)
    if (size > this.maxBytes) return
    this.entries.set(key, { value, size, until })
    this.used += size
    for (const oldest of this.entries.keys()) {
      if (this.entries.size <= this.capacity && this.used <= this.maxBytes) return
      this.remove(oldest)
    }
  }

  remove(key: string): void {
    const entry = this.entries.get(key)
    if (entry === undefined) return
    this.entries.delete(key)
    this.used -= entry.size
  }
}
