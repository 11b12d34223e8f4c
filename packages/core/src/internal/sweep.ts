/**
 * One walk over a text: what was covered so far, and how far each kind of secret was looked for.
 */
import * as Characters from "./characters.ts"

/** What stands in the place of a secret. */
export const mark = "[redacted]"
const markCodes = new TextEncoder().encode(mark)
const decoder = new TextDecoder()

/** From half as many pieces on it is worth while to write the text character by character. */
const many = 128

const nothingKept = new Int32Array(0)

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
  /** Begins and ends of what is kept between marks, in turn. */
  #kept = nothingKept
  #keptSize = 0
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
    if (this.#keptSize === 0 || start > this.#copied) this.#keep(this.#copied, start)
    this.#copied = end
  }

  #keep(start: number, end: number) {
    const size = this.#keptSize
    if (size === this.#kept.length) {
      const more = new Int32Array(Math.max(16, 4 * size))
      more.set(this.#kept)
      this.#kept = more
    }
    this.#kept[size] = start
    this.#kept[size + 1] = end
    this.#keptSize = size + 2
  }

  /** The text with its marks; the same text where nothing was covered. */
  finish(): string {
    this.#coverCardsBefore(this.end)
    if (this.#keptSize === 0) return this.#text
    this.#keep(this.#copied, this.end)
    return (this.#keptSize >= many ? this.#marked() : undefined) ?? this.#joined()
  }

  #joined(): string {
    const pieces: Array<string> = []
    for (let index = 0; index < this.#keptSize; index += 2) {
      pieces.push(this.slice(this.#kept[index] ?? 0, this.#kept[index + 1] ?? 0))
    }
    return pieces.join(mark)
  }

  /** The same in a third of the time, of a text that is all ASCII; `undefined` of any other. */
  #marked(): string | undefined {
    const { codes } = this
    const kept = this.#kept
    const size = this.#keptSize
    let length = (size / 2 - 1) * mark.length
    for (let index = 0; index < size; index += 2) length += (kept[index + 1] ?? 0) - (kept[index] ?? 0)
    const bytes = new Uint8Array(length)
    let to = 0
    let all = 0
    for (let index = 0; index < size; index += 2) {
      if (index > 0) for (let at = 0; at < markCodes.length; at++) bytes[to++] = markCodes[at] ?? 0
      const end = kept[index + 1] ?? 0
      for (let from = kept[index] ?? 0; from < end; from++) {
        const code = codes[from] ?? 0
        all |= code
        bytes[to++] = code
      }
    }
    return all < 0x80 ? decoder.decode(bytes) : undefined
  }
}
