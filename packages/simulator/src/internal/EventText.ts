/** How an event goes on the wire under a plan. */
import * as Answer from "./Answer.ts"
import type { EventForm } from "./Plan.ts"

const endings = { lf: "\n", cr: "\r", crlf: "\r\n" } as const
const turns = [endings.lf, endings.crlf, endings.cr] as const

/** Of the n-th event. `mixed` changes between events only: a CR before a LF would be one ending, not two. */
export const newline = ({ lineEnding }: EventForm, index: number): string =>
  lineEnding === "mixed" ? (turns[index % turns.length] ?? "\n") : endings[lineEnding]

export const encode = (frame: Answer.Frame, form: EventForm, index: number): string => {
  const line = newline(form, index)
  if (!form.multiLine && !form.noSpace && !form.extraFields) return Answer.encode(frame, line)
  const field = (name: string, value: string) => `${name}:${form.noSpace ? "" : " "}${value}${line}`
  // JSON may be broken after its first brace; a decoder puts a line feed there.
  const data = form.multiLine && frame.data.startsWith("{") ? ["{", frame.data.slice(1)] : [frame.data]
  return [
    ...(form.extraFields
      ? [field("id", String(index)), field("retry", "1000"), field("x-unknown", "1")]
      : []),
    ...(frame.event === undefined ? [] : [field("event", frame.event)]),
    ...data.map((text) => field("data", text)),
    line
  ].join("")
}
