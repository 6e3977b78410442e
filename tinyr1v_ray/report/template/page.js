"use strict";
for (const form of document.querySelectorAll("form.filters")) {
  const cards = [...document.getElementById(form.dataset.for).children];
  const chosen = (name) => form.elements[name]?.value ?? "";
  const apply = () => {
    const benchmark = chosen("benchmark");
    const models = [chosen("model"), chosen("beside")].filter(Boolean);
    const differ = form.elements.differ?.checked ?? false;
    let shown = 0;
    for (const card of cards) {
      const answers = [...card.querySelectorAll(".said > li")];
      for (const answer of answers) {
        const speakers = [...answer.querySelectorAll("[data-model]")];
        for (const who of speakers) who.hidden = models.length > 0 && !models.includes(who.dataset.model);
        answer.hidden = speakers.every((who) => who.hidden);
      }
      const verdicts = new Set(answers.filter((answer) => !answer.hidden).map((answer) => answer.dataset.right));
      const wanted = (!benchmark || card.dataset.benchmark === benchmark)
        && (answers.length > 0 || !models.length || models.includes(card.dataset.model))
        && (!differ || verdicts.size > 1);
      card.hidden = !wanted;
      shown += wanted ? 1 : 0;
    }
    form.querySelector("output").textContent = `${shown} of ${cards.length} shown`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
