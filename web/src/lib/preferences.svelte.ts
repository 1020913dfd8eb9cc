// Language and theme: chosen here, remembered in this browser, applied at once. Read before the first paint by theme.js.

import { words, type Language, type Words } from './words'

export type Theme = 'system' | 'light' | 'dark'

function recall(key: string): string | null {
  try {
    return localStorage.getItem(`quinze.${key}`)
  } catch {
    return null
  }
}

function remember(key: string, value: string | null) {
  try {
    if (value === null) localStorage.removeItem(`quinze.${key}`)
    else localStorage.setItem(`quinze.${key}`, value)
  } catch {
    // Storage is closed to us: the choice lasts as long as the page.
  }
}

const remembered = recall('theme')
let language = $state<Language>((recall('language') ?? navigator.language ?? 'en').startsWith('zh') ? 'zh' : 'en')
let theme = $state<Theme>(remembered === 'light' || remembered === 'dark' ? remembered : 'system')

export const preferences = {
  get language() {
    return language
  },
  set language(chosen: Language) {
    language = chosen
    remember('language', chosen)
    document.documentElement.lang = chosen === 'zh' ? 'zh-CN' : 'en'
  },
  get theme() {
    return theme
  },
  set theme(chosen: Theme) {
    theme = chosen
    remember('theme', chosen === 'system' ? null : chosen)
    if (chosen === 'system') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = chosen
  },
}

type Arguments<K extends keyof Words> = Words[K]['en'] extends (...given: infer A) => string ? A : []

/** A text in the chosen language: `t('save')`, `t('documents', 3)`. */
export function t<K extends keyof Words>(key: K, ...given: Arguments<K>): string {
  const text = words[key][language] as string | ((...given: unknown[]) => string)
  return typeof text === 'function' ? text(...given) : text
}
