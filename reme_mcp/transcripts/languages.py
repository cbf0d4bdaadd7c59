"""How people say that something works or does not, language by language.

In:  nothing.
Out: a row of patterns for each language. Rows are looked at one by one, so that a word of one language ("no", "si") has
     no say in another.
Does not know: sentences, and what follows from a match.

A row is small on purpose. Words with two readings are left out: what is not understood is no verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NEVER = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Language:
    """How one language says it; all patterns are matched against lower case text.

    Attributes:
        works: It does what was asked.
        thanks: Words of thanks, which may also be mere politeness.
        praise: Words of praise.
        fails: It does not.
        undo: What was done is to be taken back.
        negation: Turns `works` into its opposite, and takes `fails`, `praise` and `thanks` back.
        no_fact: The sentence asks, wishes, supposes or doubts.
        negates_after: A negation may also follow what it negates.
    """

    works: re.Pattern[str]
    thanks: re.Pattern[str]
    praise: re.Pattern[str]
    fails: re.Pattern[str]
    undo: re.Pattern[str]
    negation: re.Pattern[str]
    no_fact: re.Pattern[str]
    negates_after: bool = False


def _words(*alternatives: str, spaced: bool = True) -> re.Pattern[str]:
    if not alternatives:
        return _NEVER
    joined = "|".join(alternatives)
    return re.compile(rf"\b(?:{joined})(?!\w)" if spaced else f"(?:{joined})")


ENGLISH = Language(
    works=_words(
        r"(?:it|this|that|everything|all|now|they|both)(?:'s| is| are|'re| does)? "
        r"(?:(?:now|all|finally|really|just|actually|indeed) )*"
        r"(?:works?|worked|working|fixed|solved|resolved|correct|perfect|good|green|fine|done|passes|passing|pass)",
        r"(?<!\w )works?(?=\W*$| (?:now|great|fine|well|perfectly|again|like a charm|as expected))",
        r"(?:is|are) (?:now |all |finally )*(?:fixed|solved|resolved|green|working|passing|up and running)",
        r"(?:works|runs|passes|compiles|builds|loads|starts) (?:now|fine|well|perfectly|again|great|as expected"
        r"|for me)",
        r"(?:did|does) the (?:trick|job)|problem solved|(?:that|this) (?:helped|helps|did it|does it|fixed it"
        r"|solved it)",
        r"(?:finally|now) works?",
        r"no more (?:crash|error|failure|problem|issue)\w*|confirmed(?: working)?",
        r"no longer (?:crash|fail|break|hang|happen)\w*",
        r"(?:does|do|did|is)(?:n't| not) (?:crash|fail|break|hang|happen)\w* (?:anymore|any more|any longer|now)",
        r"as expected|exactly what i (?:wanted|needed|asked for)|you (?:fixed|solved|nailed) it",
    ),
    thanks=_words(
        r"(?:thanks|thank (?:you|u))(?! anyway| for (?:trying|nothing)| though| but| in advance)",
        "thx",
        "ty",
        "cheers",
        "much appreciated",
        "appreciate it",
    ),
    praise=_words(
        r"(?:perfect|great|excellent|awesome|brilliant|wonderful|lovely|fantastic|amazing|beautiful|superb)(?:ly)?",
        r"nice(?! try)",
        r"(?:well|nicely) done|(?:good|great|nice) (?:job|work)|lgtm|looks (?:good|great|perfect)|ship it|love it",
    ),
    fails=_words(
        r"(?:does|do|did|is|are|was|were|has|have|ca|could|wo)(?:n't| not| still not|not)\s+(?:\w+\s+){0,2}?"
        r"(?:work\w*|help\w*|fix\w*|solve\w*|right|correct|it|compile|build|start|run|load|pass|change\w*|what"
        r"|how|there)",
        r"not (?:working|fixed|solved|resolved|right|correct|it|good|what i (?:asked|wanted|meant|need\w*))",
        r"still (?:\w+ ){0,2}?(?:fail\w*|broken|wrong|crash\w*|errors?|the same|not|doesn't|don't|isn't|can't|hang\w*"
        r"|happen\w*|there|see\w* the|get\w* (?:the|an?) )",
        r"(?:fails|crashes|crashed|breaks|broke|hangs|freezes|failed|failing|regressed|errors out)",
        r"(?:is|are|was|gets?|got|'s) (?:(?:now|all|completely|totally|also|even|just|still) )*(?:broken|wrong"
        r"|worse)",
        r"(?:made|makes|making) (?:it|things|everything) worse|worse than before|no better|useless",
        r"(?:the )?same (?:error|problem|issue|result|bug|crash|exception|failure)|(?:give|giving|gave) up",
        r"nothing (?:changed|works|happens|happened)|no (?:change|difference|effect|luck|dice)",
    ),
    undo=_words(
        r"(?:revert|undo|roll ?back|back out|take back|discard)(?: (?:it|that|this|them|everything|all|your \w+"
        r"|the (?:last |whole )?(?:changes?|commits?|edits?)))?(?=\W*(?:$|[,.!;]|please|now|and|immediately))",
        r"(?:revert|undo|roll back|discard) (?:it|that|this|everything|all|your)",
        r"roll (?:it|that|this|everything) back",
    ),
    negation=_words(
        r"\w+n't|not|never|none|nothing|neither|nor|cannot|without|hardly|barely",
        r"no (?:longer|more|\w+ (?=fail|break|crash))",
    ),
    no_fact=_words(
        r"(?:if|when|once|until|unless|make sure|ensure|should|would|could|can|please|let's|lets|want|wants|need"
        r"|needs"
        r"|try|must|wish|hope|hopefully|maybe|perhaps|might|supposed|not sure|don't know|whether|in advance|wonder"
        r"|in case|assuming|i think|i guess|probably|pretend|tell me|expected to|used to|before you)",
        r"(?:^|(?<=[\n.!,]))\s*(?:is|are|does|do|did|was|were|has|have|will) "
        r"(?:it|this|that|the|they|there|everything|all|you|we|i)",
        r"^\s*(?:write|add|make|create|implement|update|change|remove|explain|describe|use|deploy|fix)",
        r"(?:docs?|documentation|readme|manual|page|article|comment|issue|you|they|he|she) (?:says?|said|claims?)",
        r"^\s*(?:why|how|what|where|which|who)|(?:how|why|what|whether|which|where) (?:it|this|that|the|they"
        r"|everything|all)",
    ),
)
GERMAN = Language(
    works=_words(
        r"(?:läuft|laeuft|funktioniert|funzt|klappt|passt|stimmt)(?:'?s)?",
        r"(?:jetzt|nun|es|das|alles|wieder) geht(?:'s)?(?! um)|geht (?:jetzt|nun|wieder|alles)",
        r"(?:gelöst|behoben|repariert|erledigt|gefixt)|hat (?:geklappt|funktioniert|geholfen)|lief durch",
        r"alles (?:gut|grün|bestens|ok|okay|in ordnung|prima)|wie gewünscht|genau so",
    ),
    thanks=_words(r"danke\w*", r"(?:vielen|besten|herzlichen|lieben) dank", "dank dir", "merci"),
    praise=_words(
        r"sieht (?:sehr |richtig )?(?:gut|super|perfekt) aus",
        r"super|prima|klasse|toll|perfekt|spitze|wunderbar|ausgezeichnet|hervorragend|genial|großartig|sauber",
        r"sehr gut|gut gemacht|gute arbeit|top",
    ),
    fails=_words(
        r"nicht geholfen|nichts gebracht",
        r"kaputt\w*|falsch|fehlgeschlagen|schl[aä]e?gt fehl|scheitert|gescheitert|(?:stürzt|bricht) (?:\w+ ){0,2}?ab",
        r"abgestürzt|schlimmer|(?:immer noch|noch immer|weiterhin) (?:\w+ ){0,2}?(?:fehler\w*|kaputt|falsch|rot)",
        r"(?:der|den|die|das)?(?: )?(?:selbe|gleiche|selben|gleichen|selber|gleicher) (?:fehler|problem|meldung)",
        r"(?:der|den|das)selbe[n]? (?:fehler|problem)|fehler (?:ist )?(?:immer noch|noch) da",
        r"hilft nicht|bringt nichts|unbrauchbar|geht (?:\w+ ){0,4}?nicht|(?:immer noch|noch immer) nicht",
    ),
    undo=_words(
        r"(?:mach|machs|mache|nimm) (?:\w+ ){0,3}?(?:rückgängig|zurück)|rückgängig machen|zurücksetzen|zurückrollen",
        r"(?:setz|roll|dreh)\w* (?:\w+ ){0,3}?zurück|revert\w*",
    ),
    negation=_words("nicht", r"kein\w*", "nie", "niemals", "nix", "nichts"),
    no_fact=_words(
        r"^\s*(?:wie|warum|wieso|weshalb|was|wo|wann|welche\w*)",
        r"wenn|falls|sobald|ob|bitte|soll\w*|könnt\w*|kannst|würd\w*|möcht\w*|will|willst|muss|musst|vielleicht"
        r"|hoffentlich|im voraus|sicherstellen|stell sicher|damit|versuch\w*|weiß nicht|eigentlich",
        r"^\s*(?:funktioniert|läuft|geht|klappt|passt|stimmt|ist|hat) (?:es|das|der|die|alles)",
    ),
    negates_after=True,
)
FRENCH = Language(
    works=_words(
        r"(?:marche|fonctionne|tourne|passe)(?: (?:bien|maintenant|enfin|parfaitement|très|nickel))",
        r"(?:ça|ca|cela|tout|c'est|il|elle|qui) (?:marche|fonctionne|tourne|refonctionne|passe)",
        r"(?:réparé|résolu|corrigé|réglé)e?s?|c'est (?:bon|tout bon|parfait)|tout (?:est )?(?:bon|vert|ok)"
        r"|a (?:marché|fonctionné)",
    ),
    thanks=_words("merci", "remerciements"),
    praise=_words(r"parfait|super|génial|excellent|bravo|nickel|impeccable|magnifique|bien joué|beau travail|top"),
    fails=_words(
        r"cassée?s?|casse (?:tout|\w+)|échou\w+|plante\w*|planté|même (?:erreur|problème|souci|bug)",
        r"toujours (?:pas|la même|le même|cassé|une erreur|en erreur|rouge)|c'est faux|incorrecte?|pire|aucun effet",
        r"(?:marche|fonctionne|tourne|passe|compile)(?: \w+){0,2} pas|ne (?:marche|fonctionne|tourne|passe|compile)",
    ),
    undo=_words(
        r"annul(?:e|ez|er|ons)(?: \w+)?|rev(?:iens|enez|enir) en arrière|remets? (?:\w+ ){0,3}?comme avant|revert"
    ),
    negation=_words("pas", "ne", r"n'\w+", "jamais", "rien", r"aucune?", "plus"),
    no_fact=_words(
        r"^\s*(?:pourquoi|comment|qu'est|quand|où)",
        r"si|s'il|quand|lorsque|stp|svp|peux|peut-être|pourrais|pourriez|devrai\w+|faudrait|veux|voudrais|j'espère"
        r"|d'avance|assure-toi|faut|est-ce",
    ),
    negates_after=True,
)
SPANISH = Language(
    works=_words(
        r"funciona(?:ndo|n)?|funcionó|ha funcionado|va (?:bien|perfecto)|sirvió|quedó (?:bien|perfecto|listo)",
        r"(?:arreglad|solucionad|resuelt|corregid)[oa]s?|todo (?:bien|verde|correcto|en orden)|ya (?:va|anda|está)",
    ),
    thanks=_words("gracias", r"agradecid[oa]", "te lo agradezco"),
    praise=_words(r"perfecto|genial|excelente|estupendo|fantástico|buen trabajo|bien hecho|muy bien|increíble"),
    fails=_words(
        r"no (?:sirve|va|anda)",
        r"fall(?:a|an|ó|ando)|ha fallado|sigue (?:fallando|igual|rot[oa]|dando|mal|el|con)|rot[oa]s?|rompe\w*|rompió",
        r"mism[oa] (?:error|problema|fallo)|(?<!menos )mal(?! de)|incorrecto|equivocado|peor|se cae|se cuelga",
        r"sigue sin \w+",
    ),
    undo=_words(r"rev(?:ierte|ertir|iértelo)(?: \w+)?|deshaz\w*|deshacer\w*|vuelve atrás|haz rollback"),
    negation=_words("no", "nunca", "tampoco", "nada", "sin"),
    no_fact=_words(
        r"^\W*(?:cómo|por qué|qué|dónde|cuándo)",
        r"si|cuando|por favor|puedes|podrías|debería|quiero|necesito|quizás?|tal vez|ojalá|espero|de antemano"
        r"|asegúrate|haz que|intenta",
    ),
)
PORTUGUESE = Language(
    works=_words(
        r"funciona(?:ndo|m)?|funcionou|deu certo|resolv(?:ido|eu)|corrigid[oa]|consertad[oa]|tudo (?:certo|ok|verde)",
    ),
    thanks=_words(r"obrigad[oa]|brigad[oa]|valeu|agradeço"),
    praise=_words(r"perfeito|ótimo|excelente|show de bola|maravilha|muito (?:bom|bem)|bom trabalho|incrível"),
    fails=_words(
        r"falh(?:a|ou|ando)|quebr(?:ou|ado|ada|a)|mesm[oa] (?:erro|problema)|continua (?:com|dando|falhando"
        r"|quebrado|o)",
        r"errad[oa]|pior|deu (?:errado|ruim)|ainda (?:dá|da) erro",
    ),
    undo=_words(r"revert(?:e|a|er)(?: \w+)?|desfaz\w*|desfaça\w*|volta atrás"),
    negation=_words("não", "nao", "nunca", "nada", "nem", "sem"),
    no_fact=_words(
        r"^\s*(?:como|por que|o que|onde|qual)",
        r"se|quando|por favor|pode|poderia|deveria|quero|preciso|talvez|espero|tomara|certifique-se"
        r"|tente",
    ),
)
ITALIAN = Language(
    works=_words(r"funziona(?:no)?|ha funzionato|risolt[oa]|sistemat[oa]|a posto|tutto (?:ok|bene|verde|corretto)"),
    thanks=_words("grazie", "ti ringrazio"),
    praise=_words(r"perfetto|ottimo|fantastico|eccellente|bravo|benissimo|ottimo lavoro|splendido"),
    fails=_words(
        r"non (?:va|funge)",
        r"rott[oa]|rompe|fallisce|fallit[oa]|stess[oa] (?:errore|problema)|ancora (?:rotto|errori?|lo stesso)"
        r"|sbagliat[oa]"
        r"|peggio|va in crash|si blocca",
    ),
    undo=_words(r"annulla(?: \w+)?|ripristina(?: \w+)?|torna indietro|revert"),
    negation=_words("non", "mai", r"nessun\w*", "niente", "nulla", "senza"),
    no_fact=_words(
        r"^\s*(?:come|perché|cosa|dove|quale)",
        r"se|quando|per favore|puoi|potresti|dovrebbe|voglio|vorrei|forse|spero|in anticipo|assicurati|prova",
    ),
)
DUTCH = Language(
    works=_words(r"werkt|gelukt|opgelost|gefixt|gerepareerd|in orde|klopt|doet het(?: weer)?|alles (?:goed|groen)"),
    thanks=_words(r"bedankt|dank (?:je|u)(?: wel)?|dankjewel|dankuwel"),
    praise=_words(r"top|perfect|geweldig|prima|uitstekend|mooi|goed gedaan|super"),
    fails=_words(
        r"kapot|mislukt|faalt|crasht|zelfde (?:fout|probleem|foutmelding)|nog steeds (?:kapot|fout|een fout"
        r"|dezelfde|rood)"
        r"|verkeerd|erger",
    ),
    undo=_words(r"terugdraaien|draai (?:\w+ ){0,3}?terug|maak (?:\w+ ){0,2}?ongedaan|revert"),
    negation=_words("niet", "geen", "nooit", "niks", "niets"),
    no_fact=_words(
        r"^\s*(?:hoe|waarom|wat|waar|welke)",
        r"als|wanneer|zodra|of|alsjeblieft|aub|graag|kun|kan je|zou|moet|wil|misschien|hopelijk|alvast|zorg",
    ),
    negates_after=True,
)
NORDIC = Language(
    works=_words(r"fungerar|fungerer|virker|funkar|løst|löst|fikset|fixat|(?:allt|alt) (?:bra|ok|godt|grønt|grönt)"),
    thanks=_words(r"tack|takk|tak|tusen takk|tack så mycket|mange tak"),
    praise=_words(r"perfekt|toppen|utmärkt|bra jobbat|godt jobba|strålende|kanon|fantastisk\w*"),
    fails=_words(
        r"trasig\w*|ødelagt|samma fel|samme (?:feil|fejl)|kraschar|krasjer|misslyck\w*|mislyk\w*|fel igen|värre"
    ),
    undo=_words(r"ångra(?: \w+)?|angre(?: \w+)?|fortryd|rulla tillbaka|rull tilbake|revert"),
    negation=_words("inte", "ikke", "inget", "ingen", "aldrig", "aldri"),
    no_fact=_words(
        r"^\s*(?:hur|hvordan|varför|hvorfor|vad|hva|hvad)",
        r"om|hvis|när|når|snälla|vennligst|kan du|ska|skal|borde|burde|kanske|kanskje|måske|vill|vil",
    ),
    negates_after=True,
)
POLISH = Language(
    works=_words(r"działa(?:ją)?|zadziałało|naprawion[eoya]|rozwiązan[eoya]|udało się|wszystko (?:gra|ok|dobrze)"),
    thanks=_words(r"dzięki|dziękuję|dziekuje|dzieki"),
    praise=_words(r"świetnie|super|idealnie|doskonale|brawo|rewelacja|dobra robota"),
    fails=_words(r"zepsut\w*|zepsuł\w*|psuje|ten sam (?:błąd|problem)|źle|gorzej|błąd nadal|nadal (?:błąd|to samo)"),
    undo=_words(r"cofnij(?: \w+)?|wycofaj(?: \w+)?|przywróć(?: \w+)?"),
    negation=_words("nie", "nigdy", "nic", "bez"),
    no_fact=_words(
        r"^\s*(?:jak|dlaczego|co|gdzie)",
        r"jeśli|jeżeli|gdy|kiedy|proszę|czy|możesz|powinn\w*|chcę|może|upewnij|spróbuj|z góry",
    ),
)
RUSSIAN = Language(
    works=_words(
        r"работает|работают|заработал[оаи]?|починил\w*|исправлен[оаы]?|решен[оа]|решён|получилось|помогло"
        r"|вс[её] (?:хорошо|ок|отлично|зелен\w*|в порядке)|працює|запрацювал\w*|вийшло",
    ),
    thanks=_words(r"спасибо|благодарю|дякую"),
    praise=_words(r"отлично|супер|идеально|класс|здорово|прекрасно|круто|молодец|чудово|відмінно"),
    fails=_words(
        r"сломал\w*|сломан\w*|лома\w+|пада(?:ет|ют)|упал[оаи]?|вылетает|та же (?:самая )?ошибка"
        r"|тот же (?:самый )?баг",
        r"(?:по-прежнему|вс[её] ещ[её]) (?:ошибка|та же|то же)|неправильно|неверно|хуже|та сама помилка|зламал\w*",
    ),
    undo=_words(r"откати\w*(?: \w+)?|верни\w* (?:вс[её]|как было|обратно|назад)|отмени\w*|поверни\w* назад"),
    negation=_words("не", "нет", "ни", "ничего", "без", "ні"),
    no_fact=_words(
        r"^\s*(?:как|почему|что|где|зачем|чому|як)",
        r"если|когда|пожалуйста|можешь|можете|мож(?:но|ет)|должн\w*|хочу|нужно|надо|возможно|надеюсь|заранее"
        r"|сделай\w*|убедись|якщо|будь ласка",
    ),
)
TURKISH = Language(
    works=_words(r"çalışıyor|çalıştı|düzeldi|çözüldü|halloldu|işe yaradı"),
    thanks=_words(r"teşekkür\w*|sağ ?ol\w*"),
    praise=_words(r"harika|mükemmel|süper|eline sağlık|çok iyi"),
    fails=_words(r"çalışmıyor|çalışmadı|olmadı|bozuk|bozuldu|aynı (?:hata|sorun)|yanlış|daha kötü|çöküyor"),
    undo=_words(r"geri al\w*"),
    negation=_words("değil", "hiç"),
    no_fact=_words(
        r"nasıl|neden|niye", r"eğer|lütfen|\w*(?:mı|mi|mu|mü)|belki|umarım|gerek\w*|lazım|olursa|\w+(?:sa|se)"
    ),
)
INDONESIAN = Language(
    works=_words(r"berhasil|berfungsi|sudah (?:jalan|bisa|beres|benar|oke)|selesai"),
    thanks=_words(r"terima ?kasih|makasih"),
    praise=_words(r"mantap|sempurna|bagus|keren"),
    fails=_words(r"gagal|rusak|salah|masih (?:error|gagal|sama|rusak)|error yang sama|lebih buruk"),
    undo=_words(r"kembalikan(?: \w+)?|batalkan(?: \w+)?"),
    negation=_words("tidak", "belum", "bukan", "gak", "nggak", "tak"),
    no_fact=_words(
        r"bagaimana|mengapa|kenapa", r"jika|kalau|bila|tolong|bisakah|apakah|harus|mungkin|semoga|mau|ingin|pastikan"
    ),
)
VIETNAMESE = Language(
    works=_words(r"chạy được|hoạt động|ổn rồi|được rồi|xong rồi|chạy (?:tốt|ngon)"),
    thanks=_words(r"cảm ơn|cám ơn"),
    praise=_words(r"tuyệt(?: vời)?|hoàn hảo|tốt lắm|quá tốt"),
    fails=_words(r"vẫn (?:lỗi|bị|hỏng)|cùng lỗi|lỗi cũ|hỏng|sai rồi|tệ hơn"),
    undo=_words(r"hoàn tác|khôi phục lại"),
    negation=_words("không", "chưa", "chẳng"),
    no_fact=_words(r"tại sao|vì sao|như thế nào|làm sao", r"nếu|khi|làm ơn|xin hãy|có thể|hãy|nên|phải|hy vọng|muốn"),
)
ARABIC = Language(
    works=_words(r"(?:ي|ت)عمل(?:ون)?|اشتغل|اشتغلت|نجح|نجحت|تم (?:الحل|الإصلاح)|كل شيء (?:جيد|تمام)|تمام"),
    thanks=_words(r"شكرا|شكرًا|شكراً|أشكرك"),
    praise=_words(r"ممتاز|رائع|مثالي|أحسنت"),
    fails=_words(r"فشل|فشلت|نفس (?:الخطأ|المشكلة)|معطل|مكسور|خطأ|أسوأ"),
    undo=_words(r"تراجع(?: \w+)?|أرجع (?:\w+)"),
    negation=_words("لا", "لم", "ليس", "ليست", "لن", "ما", "بدون"),
    no_fact=_words(r"كيف|لماذا", r"إذا|لو|عندما|من فضلك|هل|يجب|أريد|ربما|أتمنى|تأكد|حاول"),
)
HINDI = Language(
    works=_words(r"काम कर (?:रहा|रही)|काम किया|चल (?:रहा|गया)|ठीक (?:हो गया|है)|हो गया", spaced=False),
    thanks=_words("धन्यवाद", "शुक्रिया", spaced=False),
    praise=_words("बढ़िया", "शानदार", "बहुत अच्छा", spaced=False),
    fails=_words(
        r"वही (?:त्रुटि|एरर|समस्या|गलती)", "काम नहीं", "नहीं (?:चल|कर) ?रह", "नहीं हुआ", "टूट", "गलत", "विफल", spaced=False
    ),
    undo=_words("वापस (?:करो|कर दो|ले लो)", spaced=False),
    negation=_words("नहीं", "मत", spaced=False),
    no_fact=_words("कैसे", "क्यों", "अगर", "कृपया", "क्या", "चाहिए", "शायद", "सकते", spaced=False),
)
CHINESE = Language(
    works=_words(
        "(?<![不没沒未])可以了|(?<![不没沒未有])成功了?|(?<![没沒有未])搞定|没问题|沒問題|没有问题|(?<!不)能用了"
        "|(?<!不)正常了",
        "(?<![没沒有未])解[决決]了|(?<![没沒有未])修好了|(?<![没沒有未])通[过過]了|跑通了|(?<!不)行了|(?:现在|都"
        "|全)好了",
        "[没沒不](?:有)?(?:再)?(?:报错|報錯|错误|錯誤)了?",
        spaced=False,
    ),
    thanks=_words("(?<!不用)谢谢", "(?<!不用)謝謝", "多谢", "多謝", "感谢", "感謝", "辛苦了", spaced=False),
    praise=_words("完美", "很好", "太棒了", "太好了", "(?<!真)不错", "厉害", "(?<![不])棒", "給力|给力", spaced=False),
    fails=_words(
        "(?<!可)不行(?!了吗)|没有?用(?!过)|沒用|不对|不對|没有?(?:成功|搞定|解决|修好|通过|生效)|沒有?(?:成功|搞定|解決"
        "|修好|通過|生效)",
        "(?:还是|還是|仍然|依然|仍|还|還)(?:不|没|沒|错|錯|报错|報錯|失败|失敗|有问题|有問題|一样|一樣|同样|崩)",
        "(?<![没沒不有再])(?:报错|報錯|失败|失敗|崩溃|崩潰)|坏了|壞了|搞坏|弄坏|不能用|用不了|没法用|不工作|更糟"
        "|同样的错误|一样的错误",
        spaced=False,
    ),
    undo=_words("撤[销銷回]", "回[滚滾退]", "还原|還原", "恢复原[样樣]|恢復原[样樣]", "改回去", spaced=False),
    negation=_NEVER,
    no_fact=_words(
        "为什么|為什麼|为何|怎么|怎麼|如何|什么时候",
        "如果|假如|要是|的[话話]|应该|應該|能不能|可不可以|是否|[吗嗎]|希望|需要|想要|[请請](?!问题)|[帮幫]我"
        "|有没有|确保|確保|也许|可能",
        spaced=False,
    ),
)
JAPANESE = Language(
    works=_words(
        "動(?:きました|いた|いています|いてます|作しました|作しています|くようになり)|うまくい(?:きました|った)"
        "|直(?:りました|った)",
        "解決(?:しました|した|です)|(?<!失敗)でき(?:ました|た)(?!ません)|成功(?:しました|した|です)"
        "|通(?:りました|った)|問題(?:ありません|ない|なし)",
        spaced=False,
    ),
    thanks=_words("ありがと", "感謝", "助かりました", "助かった", "サンキュー", spaced=False),
    praise=_words("完璧", "素晴らしい", "すばらしい", "いいですね", "最高", "バッチリ|ばっちり", spaced=False),
    fails=_words(
        "動(?:かない|きません|かなく|作しない|作しません|かなかった)|うまくい(?:かない|きません|かなかった)"
        "|直って(?:い)?(?:ない|ません)|直り?ません",
        "同じ(?:エラー|問題|結果)|失敗(?:しました|した|します|する)|[ダだ][メめ]|駄目|壊れ|間違|違(?:います|う)"
        "|エラーが(?:出|で|発生)|エラーになり",
        "まだ(?:エラー|失敗)|でき(?:ません|ない|なかった)|悪化|落ちます",
        spaced=False,
    ),
    undo=_words("元に戻", "(?:取り消|取消)", "ロールバック", "(?<!を)戻して", spaced=False),
    negation=_NEVER,
    no_fact=_words(
        "どう|なぜ|何故",
        "もし",
        "下さい|ください",
        "たら",
        "なら",
        "(?:です|ます|でしょう)か",
        "べき",
        "はず",
        "ほしい|欲しい",
        "お願い",
        "かも",
        spaced=False,
    ),
)
KOREAN = Language(
    works=_words(
        "(?<!안 )작동(?:합니다|해요|하네요|한다|됩니다)|잘 ?(?:돼요?|됩니다|되네요|작동|돌아)|(?<!안 )(?:됐어요"
        "|됐습니다|됐네요|되네요|됩니다)",
        "해결(?:됐|되었)|고쳐졌|성공(?:했|입)|문제 ?없",
        spaced=False,
    ),
    thanks=_words("감사", "고마워", "고맙", spaced=False),
    praise=_words("완벽", "훌륭", "최고", "좋아요", "좋네요", "대박", spaced=False),
    fails=_words(
        "안 ?(?:돼|됩|되|작동|됐)|작동하지 않|되지 않|(?:여전히|아직도?) ?(?:안|오류|에러|실패|같은|똑같)"
        "|같은 (?:오류|에러|문제)|(?:오류|에러)가 (?:나|발생|떠)",
        "실패(?:했|합|해)|틀렸|고장|망가|잘못(?:됐|되|했)|더 나빠|깨졌|깨져",
        spaced=False,
    ),
    undo=_words("되돌려", "되돌리", "롤백", "원래대로", spaced=False),
    negation=_NEVER,
    no_fact=_words(
        "어떻게|왜 ",
        "만약",
        "(?:하|으)면",
        "주세요",
        "해 ?줘",
        "까요",
        "인가요",
        "혹시",
        "해야",
        "싶",
        "것 같",
        spaced=False,
    ),
)
SIGNS = Language(
    works=_words("✅", "💚", spaced=False),
    thanks=_words("🙏", spaced=False),
    praise=_words("👍", "🎉", "👏", "💯", "🚀", spaced=False),
    fails=_words("❌", "👎", "😡", "💥", spaced=False),
    undo=_NEVER,
    negation=_NEVER,
    no_fact=_NEVER,
)

LANGUAGES = (
    *(ENGLISH, GERMAN, FRENCH, SPANISH, PORTUGUESE, ITALIAN, DUTCH, NORDIC, POLISH, RUSSIAN, TURKISH, INDONESIAN),
    *(VIETNAMESE, ARABIC, HINDI, CHINESE, JAPANESE, KOREAN, SIGNS),
)
# What follows one of these takes back what stood before it.
BUT = re.compile(
    r"[,;.\s](?:but|however|although|except|aber|jedoch|allerdings|nur dass|außer|mais|pourtant|sauf|pero|sin embargo"
    r"|excepto|mas|porém|però|tuttavia|tranne|maar|ale|men|но|однако|кроме|але|ama|fakat|tapi|tetapi|nhưng|लेकिन"
    r"|لكن)[,\s]"
    r"|[，,\s](?:但是?|不过|不過|可是|然而)|(?:けれど|けど|ですが|ますが|ましたが|しかし|ただし?)[、,]?|하지만"
    r"|그런데|지만"
)
# The next thing is not a part of the last.
NEW_TASK = re.compile(
    r"\s*(?:(?:ok(?:ay)?|so|now|alright|and)[,.]? )?(?:(?:a |the )?(?:new|next|another|different|second|separate"
    r"|other|unrelated)"
    r" (?:task|thing|topic|job|issue|problem|question|request|subject)|next(?: up)?[:,]|unrelated"
    r"|on (?:to )?another|separately[:,]"
    r"|something (?:else|different)|moving on|switching"
    r"|(?:eine? )?(?:neue|nächste|andere|zweite)[rs]? (?:aufgabe|thema|sache)|etwas anderes|als nächstes"
    r"|(?:nouvelle|autre|prochaine) (?:tâche|chose|demande)|autre chose|(?:nueva|otra|siguiente) (?:tarea|cosa)"
    r"|(?:nova|outra|próxima) (?:tarefa|coisa)|(?:nuovo|altro|prossimo) (?:compito|lavoro)|altra cosa"
    r"|(?:новая|другая|следующая) задача|下一个|下一個|另一个|另一個|另外|新任务|新任務|接下来|接下來|次の|別の"
    r"|次に|다음 ?(?:작업|으로)|다른 ?작업)",
    re.IGNORECASE,
)
# Words by which a user lets the assistant go on with what it has proposed.
GO_ON = re.compile(
    r"\b(?:go ahead|proceed|continue|carry on|go on|keep going|do (?:it|that|this|so)|sounds good"
    r"|implement (?:it|that|this|the plan)"
    r"|yes|mach weiter|weiter so|leg los|vas-y|continue[zr]?|allez-y|adelante|continúa|sigue adelante|procedi"
    r"|vai|ga door|продолжай\w*)\b"
    r"|继续|繼續|開始吧|开始吧|続けて|進めて|계속",
    re.IGNORECASE,
)
