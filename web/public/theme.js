// Sets theme and language before the first paint, so that nothing flashes.
;(function () {
  var theme = null
  var language = null
  try {
    theme = localStorage.getItem('quinze.theme')
    language = localStorage.getItem('quinze.language')
  } catch (_) {
    // Storage may be closed to us; then the system decides.
  }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme
  document.documentElement.lang = (language || navigator.language || 'en').startsWith('zh') ? 'zh-CN' : 'en'
})()
