/**
 * Where a secret may be, by a character and by those beside it: with two look-ups most of what a text has of these is
 * stepped over, whatever the text.
 */
import * as Characters from "./characters.ts"
import * as NamedSecrets from "./namedSecrets.ts"
import * as SecretShapes from "./secretShapes.ts"

const { pair } = Characters

const hyphen = 1
const underscore = 1 << 1
const colon = 1 << 2
const equals = 1 << 3
const comma = 1 << 4
const point = 1 << 5
const b = 1 << 6
const a = 1 << 7
const j = 1 << 8
const at = 1 << 9
const percent = 1 << 10

/** What betrays keys and credentials; and what names a person besides. */
export const secrets = hyphen | underscore | colon | equals | comma | point | b | a | j
export const all = secrets | at | percent

const kinds = new Uint16Array(0x1_0000)
/** Before which kinds a character has a meaning, and behind which; and two letters before which, by `Characters.pair`. */
const before = new Uint16Array(0x1_0000)
const behind = new Uint16Array(0x1_0000)
const afterPair = new Uint16Array(Characters.pairs)

const add = (table: Uint16Array, characters: string, bits: number) => {
  for (let index = 0; index < characters.length; index++) {
    const code = characters.charCodeAt(index)
    table[code] = (table[code] ?? 0) | bits
  }
}

add(kinds, "-", hyphen)
add(kinds, "_", underscore)
add(kinds, ":", colon)
add(kinds, "=", equals)
add(kinds, ",", comma)
add(kinds, ".", point)
add(kinds, "Bb", b)
add(kinds, "A", a)
add(kinds, "J", j)
add(kinds, "@", at)
add(kinds, "%", percent)

/** What a word ends with: each of its last two letters may stand in either case. */
const addEnding = (word: Characters.Piece, bits: number) => {
  const index = Characters.pairAtEnd(word)
  afterPair[index] = (afterPair[index] ?? 0) | bits
}

for (const { word } of SecretShapes.prefixes) addEnding(word, hyphen | underscore)
addEnding(Characters.piece("key"), hyphen | underscore)
for (const { word } of NamedSecrets.names) addEnding(word, colon | equals)
add(before, "\"'", colon | equals | comma)
add(before, "9G", point)
add(before, "y", j)
add(before, Characters.blanks, colon | equals | comma)
for (let code = 0; code < Characters.endOfLocal; code++) {
  if (Characters.isOf(code, Characters.local)) before[code] = (before[code] ?? 0) | at
}

add(before, "-", b)
add(behind, "/", colon)
add(behind, "EeAa", b)
add(behind, "KSI", a)
add(behind, "4", percent)

// The margin ends every walk.
const nothing = 0xffff
kinds[nothing] = 1 << 15

/** The next place, from one on, to look at for kinds that somebody wants to know of; the margin if there is none. */
export const next = (codes: Characters.Codes, start: number, wanted: number): number => {
  let place = start
  for (;;) {
    while ((kinds[codes[place] ?? nothing] ?? 0) === 0) place++
    const here = kinds[codes[place] ?? nothing] ?? 0
    const last = codes[place - 1] ?? nothing
    const around =
      (before[last] ?? 0) |
      (behind[codes[place + 1] ?? nothing] ?? 0) |
      (afterPair[pair(codes[place - 2] ?? nothing, last)] ?? 0)
    if ((here & around & wanted) !== 0 || codes[place] === nothing) return place
    place++
  }
}
