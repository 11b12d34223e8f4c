/**
 * Who waits, in order.
 *
 * A level is a head start and no more: a `normal` call goes as if it had come one `headStart` later
 * than a `high` one, a `low` call two. Whoever came early enough goes before every newcomer, so
 * nobody starves.
 */
import type { Level } from "../Permit.ts"

/** A place in the line. */
export interface Place {
  /** When it is due: arrival plus the handicap of its level. */
  readonly rank: number
  readonly order: number
  /** Where it stands in the heap; -1 once it has left. */
  index: number
}

const handicaps: Record<Level, number> = { high: 0, normal: 1, low: 2 }

/** When a call of this level is due that arrives at `now`. */
export const rankOf = (level: Level, now: number, headStart: number): number =>
  now + handicaps[level] * headStart

const before = (left: Place, right: Place): boolean =>
  left.rank === right.rank ? left.order < right.order : left.rank < right.rank

/** A binary heap whose places know where they stand, so that one can leave from the middle. */
export class WaitingLine<A extends Place> {
  private readonly heap: Array<A> = []
  private readonly tell: (change: 1 | -1) => void

  /** @param tell of each place that is taken or left */
  constructor(tell: (change: 1 | -1) => void) {
    this.tell = tell
  }

  get size(): number {
    return this.heap.length
  }

  get first(): A | undefined {
    return this.heap[0]
  }

  /** All places, in no order. */
  get places(): ReadonlyArray<A> {
    return this.heap
  }

  add(place: A): void {
    this.heap.push(place)
    this.rise(place, this.heap.length - 1)
    this.tell(1)
  }

  /** Takes a place out, wherever it stands; `false` where it had left. */
  remove(place: A): boolean {
    const { index } = place
    if (index < 0) return false
    place.index = -1
    const last = this.heap.pop()
    if (last !== undefined && last !== place) {
      this.rise(last, index)
      this.sink(last, last.index)
    }
    this.tell(-1)
    return true
  }

  private put(place: A, index: number): void {
    this.heap[index] = place
    place.index = index
  }

  private rise(place: A, from: number): void {
    let index = from
    while (index > 0) {
      const parentIndex = (index - 1) >> 1
      const parent = this.heap[parentIndex]
      if (parent === undefined || !before(place, parent)) break
      this.put(parent, index)
      index = parentIndex
    }
    this.put(place, index)
  }

  private sink(place: A, from: number): void {
    let index = from
    for (;;) {
      const left = this.heap[2 * index + 1]
      const right = this.heap[2 * index + 2]
      const child = left !== undefined && right !== undefined && before(right, left) ? right : left
      if (child === undefined || !before(child, place)) break
      const childIndex = child.index
      this.put(child, index)
      index = childIndex
    }
    this.put(place, index)
  }
}
