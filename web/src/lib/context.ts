// The context ledger as the parts that the page draws. Given what the service sends; parts it does not name are left out.

import type { ContextLedger, DroppedEntry, Overflow } from './api'

export const OVERFLOWS: Overflow[] = ['error', 'drop_oldest', 'keep_ends']

export type ContextPart = 'system' | 'knowledge' | 'history' | 'prompt' | 'reply'

const NAMES: Record<string, ContextPart> = {
  system: 'system', knowledge: 'knowledge', history: 'history',
  prompt: 'prompt', template: 'system', reply: 'reply',
}

export function contextParts(ledger: ContextLedger): { part: ContextPart; tokens: number }[] {
  const source = (typeof ledger.parts === 'object' && ledger.parts !== null ? ledger.parts : ledger) as Record<string, unknown>
  const sums = new Map<ContextPart, number>()
  for (const [name, tokens] of Object.entries(source)) {
    const part = NAMES[name]
    if (part && typeof tokens === 'number' && tokens > 0) sums.set(part, (sums.get(part) ?? 0) + tokens)
  }
  return [...sums].map(([part, tokens]) => ({ part, tokens }))
}

/** What the model did not read, piece by piece. */
export function droppedEntries(ledger: ContextLedger): DroppedEntry[] {
  return Array.isArray(ledger.dropped) ? ledger.dropped : []
}
