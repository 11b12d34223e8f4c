export * as Fault from "./Fault.ts"
export * as Journal from "./Journal.ts"
export * as Scenario from "./Scenario.ts"
export * as Simulator from "./Simulator.ts"
