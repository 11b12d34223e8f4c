/**
 * Takes out of a text, in one walk over it, what looks like a secret or names a person.
 *
 * Whatever the text, the time is linear in its length: only a telling character calls for a closer look, and no kind
 * of secret is looked for twice in the same place.
 */
import * as Characters from "./characters.ts"
import * as NamedSecrets from "./namedSecrets.ts"
import * as PersonalData from "./personalData.ts"
import * as SecretShapes from "./secretShapes.ts"
import { Sweep } from "./sweep.ts"

const isBlankOrQuote = (sweep: Sweep, at: number, code: number): boolean =>
  code === 34 || code === 39 || Characters.isAt(sweep.codes, at, Characters.space)

const lookAtSeparator = (sweep: Sweep, at: number, before: number) => {
  if (!Characters.isAt(sweep.codes, at - 1, Characters.letter)) return
  SecretShapes.coverPrefixed(sweep, at)
  if ((before | 32) === 121) SecretShapes.coverKey(sweep, at)
}

const lookAtAssignment = (sweep: Sweep, at: number, before: number) => {
  if (Characters.isAt(sweep.codes, at - 1, Characters.letter) || isBlankOrQuote(sweep, at - 1, before)) {
    NamedSecrets.coverNamed(sweep, at)
  }
}

/** Looks around a telling character: what is beside it nearly always says that there is nothing. */
const lookAt = (sweep: Sweep, at: number, isPersonal: boolean) => {
  const { codes } = sweep
  const before = codes[at - 1] ?? 0
  const next = codes[at + 1] ?? 0
  switch (codes[at]) {
    case 45: // -
      if (next === 45 && codes[at + 5] === 66) SecretShapes.coverPrivateKey(sweep, at)
      lookAtSeparator(sweep, at, before)
      break
    case 95: // _
      lookAtSeparator(sweep, at, before)
      break
    case 58: // :
      if (next === 47) SecretShapes.coverUserInformation(sweep, at)
      lookAtAssignment(sweep, at, before)
      break
    case 61: // =
      lookAtAssignment(sweep, at, before)
      break
    case 44: // ,
      if (isBlankOrQuote(sweep, at - 1, before)) NamedSecrets.coverPaired(sweep, at)
      break
    case 46: // .
      if (before === 57 || before === 71) SecretShapes.coverDotted(sweep, at)
      break
    case 66: // B
    case 98: // b
      if ((next | 32) === 101) SecretShapes.coverBearer(sweep, at)
      else if (next === 97) SecretShapes.coverBasic(sweep, at)
      break
    case 65: // A
      if (next === 75 || next === 83 || next === 73) SecretShapes.coverCloudKey(sweep, at)
      break
    case 74: // J
      if (before === 121) SecretShapes.coverWebToken(sweep, at)
      break
    case 64: // @
      if (isPersonal && Characters.isAt(codes, at - 1, Characters.local)) PersonalData.coverAddress(sweep, at)
      break
    case 37: // %
      if (isPersonal && next === 52) PersonalData.coverEncodedAddress(sweep, at)
      break
  }
}

const sweep = (text: string, isPersonal: boolean): string => {
  const found = new Sweep(text)
  const { codes, end } = found
  if (isPersonal) PersonalData.findCardNumbers(found)
  let at = Characters.nextTelling(codes, Characters.margin)
  while (at < end) {
    lookAt(found, at, isPersonal)
    at = Characters.nextTelling(codes, at + 1)
  }
  return found.finish()
}

/** Takes keys and credentials out of a text. */
export const removeSecrets = (text: string): string => sweep(text, false)

/** Takes keys, credentials, e-mail addresses and card numbers out of a text. */
export const removeAll = (text: string): string => sweep(text, true)
