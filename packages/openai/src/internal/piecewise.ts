/**
 * JSON that comes in pieces, whatever it means: texts and lists grow, objects are merged, anything else is replaced.
 *
 * So does the official SDK put deltas together: what says which thing a piece belongs to is told anew with each of
 * them.
 */
import * as Predicate from "effect/Predicate"

/** Deeper than any piece of an API: what is below is held as it came, not merged. */
const maxDepth = 64

const replaced: ReadonlySet<string> = new Set(["id", "index", "type"])

/** An object that grows. */
export class Piecewise {
  private readonly fields = new Map<string, unknown>()
  private readonly depth: number
  /** @param depth of the object in those that hold it */
  constructor(depth = 0) {
    this.depth = depth
  }

  /** Adds a piece to a field; `null` is no piece. */
  add(name: string, piece: unknown): void {
    if (piece === null || piece === undefined) return
    const held = this.fields.get(name)
    if (typeof held === "string" && typeof piece === "string" && !replaced.has(name)) {
      this.fields.set(name, held + piece)
    } else if (Array.isArray(held) && Array.isArray(piece)) {
      // The list is our own: no item is copied twice, however many pieces come.
      for (const item of piece) held.push(item)
    } else if (Array.isArray(piece)) {
      this.fields.set(name, [...piece])
    } else if (Predicate.isObject(piece) && this.depth < maxDepth) {
      const inner = held instanceof Piecewise ? held : new Piecewise(this.depth + 1)
      for (const [key, value] of Object.entries(piece)) inner.add(key, value)
      this.fields.set(name, inner)
    } else {
      this.fields.set(name, piece)
    }
  }

  /** What the pieces make up; any name is a field's own, also one that is special to JavaScript. */
  toJson(): Readonly<Record<string, unknown>> {
    return Object.fromEntries(
      Array.from(this.fields, ([name, value]) => [name, value instanceof Piecewise ? value.toJson() : value])
    )
  }
}
