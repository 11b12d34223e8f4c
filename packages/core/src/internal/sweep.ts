/**
 * One walk over a text: what was covered so far, and how far each kind of secret was looked for.
 */
import * as Characters from "./characters.ts"

/** What stands in the place of a secret. */
export const mark = "[redacted]"

export class Sweep {
  /** All places count in these. */
  readonly codes: Characters.Codes
  /** Where the text ends. */
  readonly end: number

  /**
   * Where the next of a kind may begin. What was looked through once, in vain or not, is not looked through again for
   * the same: without these a text could make its length be paid squared.
   */
  prefixed = 0
  key = 0
  keyName = 0
  bearer = 0
  basic = 0
  webToken = 0
  google = 0
  sendGrid = 0
  quoted = 0
  bare = 0
  line = 0
  paired = 0
  address = 0
  encodedAddress = 0

  /** The sign between the credentials of a URL and its host: no address. */
  hostSign = -1

  /** Begins and ends, in turn. */
  readonly #cards: Array<number> = []
  #nextCard = 0
  readonly #kept: Array<string> = []
  readonly #text: string
  #copied = Characters.margin

  constructor(text: string) {
    this.#text = text
    this.codes = Characters.codesOf(text)
    this.end = this.codes.length - Characters.margin
  }

  /** The text between two places. */
  slice(start: number, end: number): string {
    return this.#text.slice(Math.max(0, start - Characters.margin), end - Characters.margin)
  }

  /** Where a piece is next; the end of the text if it is not. */
  find(piece: string, start: number): number {
    const found = this.#text.indexOf(piece, start - Characters.margin)
    return found === -1 ? this.end : found + Characters.margin
  }

  /** Puts a mark in the place of a card number. They are found before all else. */
  coverCard(start: number, end: number) {
    this.#cards.push(start, end)
  }

  /** Puts a mark in the place of a part. Parts may overlap, and come in the order in which they are found. */
  cover(start: number, end: number) {
    if (this.#nextCard < this.#cards.length) this.#coverCardsBefore(start)
    this.#cover(start, end)
  }

  #coverCardsBefore(place: number) {
    while ((this.#cards[this.#nextCard] ?? Infinity) < place) {
      this.#cover(this.#cards[this.#nextCard] ?? 0, this.#cards[this.#nextCard + 1] ?? 0)
      this.#nextCard += 2
    }
  }

  #cover(start: number, end: number) {
    if (end <= this.#copied) return
    if (this.#kept.length === 0 || start > this.#copied) this.#kept.push(this.slice(this.#copied, start))
    this.#copied = end
  }

  /** The text with its marks; the same text where nothing was covered. */
  finish(): string {
    this.#coverCardsBefore(this.end)
    if (this.#kept.length === 0) return this.#text
    this.#kept.push(this.slice(this.#copied, this.end))
    return this.#kept.join(mark)
  }
}
