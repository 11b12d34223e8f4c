/**
 * What the entries of a journal of creations leave open.
 */
import type { Entry, Open } from "../CreationJournal.ts"

/** What entries leave open. */
export class Openings {
  private readonly found = new Map<string, Open>()
  private readonly uncertain = new Set<string>()

  apply(entry: Entry): void {
    if (entry._tag === "Kept") {
      for (const [key, open] of this.found) {
        if (open.job !== entry.job) continue
        if (open.id !== undefined && !this.uncertain.has(key)) this.found.delete(key)
        else this.found.set(key, { ...open, kept: true })
      }
      return
    }
    const key = `${entry.job}/${entry.step}`
    if (entry._tag === "Settled") {
      this.found.delete(key)
      return
    }
    if (entry._tag === "Intended") {
      const { at, bytes, filename, job, kind, step } = entry
      this.found.set(key, { job, step, kind, filename, bytes, at, id: undefined, kept: false })
      return
    }
    const open = this.found.get(key)
    if (open === undefined) return
    this.found.set(key, { ...open, id: entry.id })
    if (!entry.certain) this.uncertain.add(key)
  }

  get all(): ReadonlyArray<Open> {
    return [...this.found.values()]
  }
}
