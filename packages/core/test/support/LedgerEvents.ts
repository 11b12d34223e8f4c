import { Call, type Observer, type Usage } from "@llm/core"

export const usage: Usage.Usage = {
  inputTokens: 100,
  outputTokens: 50,
  totalTokens: 150,
  cachedTokens: 20,
  cacheWriteTokens: 0,
  reasoningTokens: 10,
  exact: true
}

export const call = (id: string | undefined, given: Partial<Call.Call> = {}): Call.Call =>
  Call.make({
    id,
    provider: "openai",
    operation: "chat.create",
    model: "gpt-6-luna",
    tenant: "acme",
    keyId: "key-1",
    ...given
  })

interface Attempt {
  readonly call: Call.Call
  readonly number?: number
  readonly at?: number
}

export const callStarted = (of: Call.Call, at = 1000): Observer.CallStarted => ({
  _tag: "CallStarted",
  call: of,
  parent: undefined,
  at
})

export const attemptStarted = ({ at = 1000, call: of, number = 1 }: Attempt): Observer.AttemptStarted => ({
  _tag: "AttemptStarted",
  call: of,
  number,
  hedge: false,
  at
})

export const attemptEnded = ({
  at = 2000,
  call: of,
  number = 1,
  ...given
}: Attempt & Partial<Observer.AttemptEnded>): Observer.AttemptEnded => ({
  _tag: "AttemptEnded",
  call: of,
  number,
  hedge: false,
  startedAt: 1000,
  answeredAt: 1500,
  at,
  error: undefined,
  interrupted: false,
  executed: "yes",
  usage,
  events: 0,
  requestId: `req_${number}`,
  ...given
})

export const callEnded = (
  of: Call.Call,
  given: Partial<Pick<Observer.CallEnded, "at" | "attempts" | "error" | "wait">> = {}
): Observer.CallEnded => ({
  _tag: "CallEnded",
  call: of,
  startedAt: 1000,
  at: 2000,
  attempts: 1,
  error: undefined,
  interrupted: false,
  usage,
  requestId: undefined,
  ...given
})

/** All that is told of a call that is answered at once. */
export const answered = (of: Call.Call): ReadonlyArray<Observer.Event> => [
  callStarted(of),
  attemptStarted({ call: of }),
  attemptEnded({ call: of }),
  callEnded(of)
]
