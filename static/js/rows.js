// Rows of a list: j and k move, Enter opens, o expands, c copies the link. Everything works without it.
(() => {
  const rows = () => [...document.querySelectorAll('.ev')];
  const cursor = () => document.querySelector('.ev.cursor');
  const link = (row) => row?.querySelector('.seq a');

  const move = (step) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(cursor());
    const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
    all.forEach((row) => row.classList.toggle('cursor', row === next));
    link(next)?.focus({ preventScroll: true });
    next.scrollIntoView({ block: 'nearest' });
  };

  document.addEventListener('keydown', (event) => {
    if (!document.body.hasAttribute('data-keys') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches('input, textarea, select')) return;
    if (event.key === 'j') move(1);
    else if (event.key === 'k') move(-1);
    else if (event.key === 'o') cursor()?.querySelector('.tog')?.click();
    else if (event.key === 'c' && link(cursor())) navigator.clipboard.writeText(link(cursor()).href);
  });

  document.addEventListener('click', (event) => {
    const toggle = event.target.closest('.tog[aria-expanded="true"]');
    if (!toggle) return;
    // The first click loads the detail (htmx); the next one folds it away again.
    event.preventDefault();
    event.stopPropagation();
    toggle.closest('.ev').classList.remove('open');
    toggle.setAttribute('aria-expanded', 'false');
    document.getElementById(toggle.getAttribute('aria-controls')).replaceChildren();
  }, true);

  document.addEventListener('htmx:afterSwap', (event) => {
    const row = event.target.closest('.ev');
    if (!row || !event.target.matches('.detail-slot')) return;
    row.classList.add('open');
    row.querySelector('.tog').setAttribute('aria-expanded', 'true');
  });
})();
